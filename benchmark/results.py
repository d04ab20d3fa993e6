"""The store under `results/`: the only module that knows its files.

    runs/<data set>/<row>-<key>/run.yaml     what was run, when, on what, and a checksum of
    runs/<data set>/<row>-<key>/epochs.csv   every epoch's train loss and test error per seed
    runs/<data set>/<row>-<key>/<name>.csv   what a measurement (see measurements.py) saw, per epoch and seed
    partial/<key>/checkpoint.pt              a run under way (not for version control)

A run appears under `runs/` by one rename, when it is complete. Its key is a hash of everything that can
change its numbers and of nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import filelock
import pandas as pd
import torch
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype
from pydantic import AfterValidator, Field

from benchmark.config.files import Strict, dump_yaml, read_yaml, validated
from benchmark.errors import UserError

REQUIRED = {
    *("semantics", "method", "version", "options", "hyperparameters", "dims", "dataset"),
    *("seeds", "epochs", "batch_size", "precision"),
}
"""Of a specification, what reading a run relies on."""
DATASET = r"\w[\w.-]*"
"""A data set's name, and its folder's."""


def _is_number(column: pd.Series) -> bool:
    return is_numeric_dtype(column) and not is_bool_dtype(column)


EPOCH_TYPES: dict[str, tuple[str, Callable[[pd.Series], bool]]] = {
    "epoch": ("a whole number", is_integer_dtype),
    "seed": ("a whole number", is_integer_dtype),
    "train_loss": ("a number", _is_number),
    "test_error": ("a number", _is_number),
    "diverged": ("True or False", is_bool_dtype),
}
EPOCH_COLUMNS = tuple(EPOCH_TYPES)
_DIGEST = hashlib.sha256().digest_size  # a checkpoint begins with that of the rest


def key_of(spec: Mapping[str, Any]) -> str:
    """Twelve hex digits for a specification (nested mappings of plain values)."""
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def slug(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[\W_]+", "-", label.lower()).strip("-") or "run"


def _moment(value: str) -> str:
    with suppress(ValueError):
        if datetime.fromisoformat(value).utcoffset() == timedelta(0):
            return value
    raise ValueError(f"{value!r} found; input should be a time of UTC as 2026-01-02T03:04:05+00:00")


_Moment = Annotated[str, AfterValidator(_moment)]


class _Versions(Strict, extra="ignore"):
    torch: str
    commit: str


class _Sitting(Strict, extra="ignore"):
    started: _Moment
    device: str
    versions: _Versions
    # What the first runs do not say:
    execution: Literal["eager", "compiled", "graphed"] = "eager"
    method_code: str = ""
    replicas_per_pass: int = Field(default=1, ge=1)
    # Of a run that was put together from others:
    seeds: list[int] = []
    # Nothing reads these defaults: what a record does not say stays unsaid.


class _Data(Strict, extra="ignore"):
    checksum: str
    train_samples: int = Field(ge=1)


class _Record(Strict, extra="ignore"):
    """What a record says beside the specification, as far as anything reads it."""

    row: str
    label: str
    data: _Data
    finished: _Moment
    training_seconds: float = Field(ge=0, le=1e9)  # thirty years
    sittings: list[_Sitting] = Field(min_length=1)


@dataclass(frozen=True)
class StoredRun:
    """A complete run as read from the store."""

    folder: Path
    record: dict[str, Any]
    epochs: pd.DataFrame
    """Columns `EPOCH_COLUMNS`, one row an epoch and seed."""
    measured: dict[str, pd.DataFrame]
    """By the measurement's name."""

    @property
    def spec(self) -> dict[str, Any]:
        return self.record["spec"]

    @property
    def final(self) -> pd.DataFrame:
        """The last epoch, one row a seed, indexed by seed."""
        return self.after(self.spec["epochs"])

    @property
    def mixes_code(self) -> bool:
        """Whether different states of its method's code trained its seeds or epochs, as far as is known."""
        codes = {code for sitting in self.record["sittings"] if (code := sitting.get("method_code"))}
        return len(codes) > len({code.partition("-")[0] for code in codes})  # one a version of Python

    def after(self, epoch: int) -> pd.DataFrame:
        """An epoch from 1 on, one row a seed, indexed by seed."""
        return self.epochs[self.epochs["epoch"] == epoch].set_index("seed")


def check_same_images(runs: Sequence[StoredRun]) -> None:
    """`UserError` where runs on one data set saw different images, and so cannot be compared."""
    seen = {run.record["data"]["checksum"]: run for run in runs}
    if len(seen) > 1:
        saw = ", ".join(f"{run.folder} on {checksum[:12]}..." for checksum, run in seen.items())
        column = runs[0].spec["dataset"]["name"]
        raise UserError(
            f"{column}: stored runs were trained on different images: {saw}; delete one kind, or give the "
            "other images a name of their own in datasets.yaml"
        )


class Store:
    """Complete and partial runs below one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path | None:
        """Where a complete run lies, or None; of several copies, an intact one where it belongs."""
        return _used(self.root / "runs", key)

    def spec(self, folder: Path) -> dict[str, Any]:
        """The specification in a run's record, unchecked; `UserError` if there is none."""
        return _record(folder)["spec"]

    def read(self, folder: Path) -> StoredRun:
        """The complete run in a folder, checked; `UserError` if its files are damaged."""
        return _read(folder, self.root / "runs")

    def load(self, *keys: str) -> StoredRun | None:
        """The first complete run that has one of the keys, checked; `UserError` if its files are damaged."""
        folder = next((found for key in keys if (found := self.folder(key))), None)
        return None if folder is None else self.read(folder)

    def folders(self, dataset: str | None = None) -> list[Path]:
        """The folders of all complete runs, or of those on one data set."""
        runs = self.root / "runs"
        columns = _columns(runs) if dataset is None else [runs / dataset]
        found = [path for column in columns for path in inside(column)]
        return sorted(path for path in found if path.is_dir() or path.is_symlink())

    def runs(self) -> list[StoredRun]:
        """All complete runs; `UserError` for a damaged one."""
        return [self.read(folder) for folder in self.folders()]

    def problems(self) -> list[str]:
        """What is wrong with the store, one line a damaged or misplaced run."""
        found = []
        folders, runs = self.folders(), self.root / "runs"
        misplaced = sorted({file.parent for file in runs.glob("**/run.yaml")} - {runs, *folders})
        for folder in [*misplaced, *folders]:
            try:
                self.read(folder)
            except UserError as error:
                found.append(str(error))
        return found

    @contextmanager
    def claim(self, key: str, what: str = "") -> Iterator[None]:
        """Hold a run, called `what`, for this process; `UserError` if another one trains it."""
        lock = self.partial(key) / "lock"
        self._make(lock.parent)
        held = filelock.FileLock(lock, timeout=0)
        try:
            held.acquire()
        except filelock.Timeout:
            named = f"run {key} ({what})" if what else f"run {key}"
            raise UserError(f"{named} is being trained by another process; wait for it, or stop it") from None
        try:
            yield
        finally:
            held.release()
            # Nothing left to continue: the folder goes too.
            if not (lock.parent / "checkpoint.pt").exists():
                shutil.rmtree(lock.parent, ignore_errors=True)

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        """The newest state of a run under way, or None."""
        file = self.partial(key) / "checkpoint.pt"
        if file not in inside(file.parent):
            return None
        try:
            content = file.read_bytes()
            if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
                raise ValueError("checksum")  # torch.load does not notice changed weights
            state: dict[str, Any] = torch.load(
                BytesIO(content[_DIGEST:]), weights_only=True, map_location="cpu"
            )
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            raise UserError(
                f"{file} is damaged ({type(error).__name__}); delete it to start this run again"
            ) from None
        return state

    def save_checkpoint(self, key: str, state: Mapping[str, Any]) -> None:
        """Replace a run's checkpoint in one step."""
        self._make(self.partial(key))
        content = BytesIO()
        torch.save(dict(state), content)
        with atomic_file(self.partial(key) / "checkpoint.pt") as stream:
            stream.write(hashlib.sha256(content.getbuffer()).digest())
            stream.write(content.getbuffer())

    def commit(
        self,
        label: str,
        record: Mapping[str, Any],
        epochs: pd.DataFrame,
        measured: Mapping[str, pd.DataFrame] | None = None,
    ) -> Path:
        """Make a finished run part of the store, then forget its checkpoint."""
        spec = record["spec"]
        key = key_of(spec)
        target = self.root / "runs" / spec["dataset"]["name"] / f"{slug(label)}-{key}"
        self._make(target.parent)
        self._make(self.partial(key))
        csv = epochs.to_csv(index=False, columns=list(EPOCH_COLUMNS), lineterminator="\n")
        full = {"key": key, "label": label, **record, "epochs_sha256": _sha256(csv)}
        files = {"epochs.csv": csv}
        if measured:
            tables = {name: t.to_csv(index=False, lineterminator="\n") for name, t in measured.items()}
            full["measured_sha256"] = {name: _sha256(table) for name, table in tables.items()}
            files |= {f"{name}.csv": table for name, table in tables.items()}
        files["run.yaml"] = dump_yaml(full)
        new = Path(tempfile.mkdtemp(dir=self.partial(key)))
        new.chmod(0o755)
        for name, content in files.items():
            with atomic_file(new / name) as stream:
                stream.write(content.encode())
        if not target.exists():
            os.rename(new, target)
            _sync(target.parent)
        self.forget(key)
        return target

    def forget(self, key: str) -> None:
        """Remove the checkpoint of a run that this process holds."""
        (self.partial(key) / "checkpoint.pt").unlink(missing_ok=True)

    def tidy(self, key: str) -> None:
        """Remove what a kill between storing a run and forgetting its checkpoint has left."""
        if self.folder(key) is not None:
            self.discard(key)

    def discard(self, key: str) -> None:
        """Remove what is left of a run under way, unless a process holds it."""
        if self.partial(key).exists():
            with suppress(UserError), self.claim(key):  # the process that holds it tidies up itself
                self.forget(key)

    def partial(self, key: str) -> Path:
        """Where the checkpoint of a run under way lies."""
        return self.root / "partial" / key

    def refuse_unwritable(self, dataset: str) -> None:
        """`UserError` where runs on a data set could not be kept, before hours are spent on one."""
        places = self.root / "partial", self.root / "runs" / dataset
        for folder in places:
            refuse_unwritable(folder)
        if len({existing(folder).stat().st_dev for folder in places}) > 1:
            raise UserError(
                f"{places[1]} and {places[0]} are on two file systems, between which no run can be moved in "
                "one step; they must be on one"
            )

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"results folder {self.root}: {error.strerror}: {folder}") from None


def existing(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def refuse_unwritable(folder: Path) -> None:
    """`UserError` where no file could be made in a folder, which need not be there yet."""
    there = existing(folder)
    within = "" if there == folder else f" for {folder}"
    if not there.is_dir():
        raise UserError(f"{there}: a folder is needed here{within}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} cannot be written to{within}")


def inside(folder: Path) -> list[Path]:
    """What a folder of the store holds, hidden files aside, in any order; nothing where it is not there.

    `UserError` where it cannot be read: what it holds must not be taken for missing.
    """
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError as error:
        if not folder.is_symlink():
            return []
        reason = error.strerror
    except OSError as error:
        reason = error.strerror
    raise UserError(f"{folder}: {reason}; a readable folder of the store belongs here, or nothing")


@contextmanager
def atomic_file(target: Path) -> Iterator[Any]:
    """A binary stream whose content replaces `target` as a whole, or not at all.

    `OSError` names `target` where it cannot be written: a full disk, a folder of that name.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as new:
            try:
                yield new
                new.flush()
                os.fsync(new.fileno())
                os.chmod(new.name, 0o644)
                os.replace(new.name, target)
            except BaseException:
                os.unlink(new.name)
                raise
        _sync(target.parent)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}; what was stored before is kept"
        raise OSError(error.errno, what, str(target)) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(folder: Path, runs: Path) -> StoredRun:
    try:
        run = _checked(folder)
    except UserError as error:
        deeper = [file.parent for file in folder.glob("*/**/run.yaml")]
        advice = (
            f"move out what it holds, such as {deeper[0]}" if deeper else "delete it to train this run again"
        )
        raise UserError(f"{error}; restore {folder}, or {advice}") from None
    used = _used(runs, run.record["key"])
    if folder != used or not _in_place(folder):
        raise UserError(f"{folder}: {_where_to(run, used, runs)}")
    return run


def _used(runs: Path, key: str) -> Path | None:
    """Of the folders that end in a key, the one that is read: in place and intact, if there is one."""
    found = [path for column in _columns(runs) for path in inside(column) if path.name.endswith(f"-{key}")]
    if len(found) > 1:
        found.sort(key=lambda folder: (not _in_place(folder), not _intact(folder), folder))
    return found[0] if found else None


def _columns(runs: Path) -> list[Path]:
    """The folders of data sets, and what may stand in the place of one; not a note or `lost+found`."""
    return [
        path
        for path in inside(runs)
        if re.fullmatch(DATASET, path.name) and not (path.suffix and path.is_file())
    ]


def _in_place(folder: Path) -> bool:
    """Whether a run's folder is where runs of its key and data set are looked for, whatever its label."""
    try:
        record = _record(folder)
    except UserError:
        return False
    return (
        folder.name.endswith(f"-{record['key']}") and folder.parent.name == record["spec"]["dataset"]["name"]
    )


def _intact(folder: Path) -> bool:
    try:
        _checked(folder)
    except UserError:
        return False
    return True


def _where_to(run: StoredRun, used: Path | None, runs: Path) -> str:
    """What to do with an intact run that is not the one that is read."""
    if used is None or used == run.folder or not _in_place(used):
        home = runs / run.spec["dataset"]["name"] / f"{slug(run.record['label'])}-{run.record['key']}"
        first = ", once what is there is out of the way" if home.exists() else ""
        return f"not where this run is looked for; move it to {home}{first}"
    if not _intact(used):
        return f"not where this run is looked for; let it replace {used}, which is damaged"
    ours, theirs = ((r["data"]["checksum"], r["epochs_sha256"]) for r in (run.record, _record(used)))
    if ours != theirs:
        return f"the same run as {used}, trained another time, and not looked at; keep one of them"
    return f"a copy of {used}, not looked at; delete this one"


def _record(folder: Path) -> dict[str, Any]:
    record = read_yaml(folder / "run.yaml")
    spec = record.get("spec") if isinstance(record, dict) else None
    dataset = spec.get("dataset") if isinstance(spec, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else None
    if not isinstance(name, str) or not re.fullmatch(DATASET, name) or "key" not in record:
        raise UserError(f"{folder / 'run.yaml'}: not the record of a run")
    return record


def _checked(folder: Path) -> StoredRun:
    record = _record(folder)
    data = record.get("data")
    checksums = [data.get("checksum") if isinstance(data, dict) else None, record.get("epochs_sha256")]
    if not all(isinstance(checksum, str) for checksum in checksums):
        raise UserError(f"{folder / 'run.yaml'}: not the record of a run")
    try:
        key = key_of(record["spec"])
    except (TypeError, ValueError):  # a date, a NaN
        key = None
    if key is not None and not record["spec"].keys() >= REQUIRED:
        raise UserError(f"{folder / 'run.yaml'}: the specification is not complete")
    if key is None or record.get("key") != key:
        raise UserError(f"{folder / 'run.yaml'}: the specification does not match the run's key")
    validated(_Record, record, folder / "run.yaml")
    epochs = _epochs(folder / "epochs.csv", record["epochs_sha256"])
    digests = record.get("measured_sha256", {})
    spec = record["spec"]
    if not isinstance(digests, dict) or set(digests) != set(spec.get("measure", {})):
        raise UserError(f"{folder / 'run.yaml'}: not every measurement of the run is there")
    measured = {name: _table(folder / f"{name}.csv", digest) for name, digest in digests.items()}
    expected = {(e, s) for e in range(1, spec["epochs"] + 1) for s in spec["seeds"]}
    if set(zip(epochs["epoch"], epochs["seed"], strict=True)) != expected or len(epochs) != len(expected):
        raise UserError(f"{folder / 'epochs.csv'}: not every epoch and seed of the run is there")
    return StoredRun(folder, record, epochs, measured)


def _epochs(file: Path, digest: Any) -> pd.DataFrame:
    """Also where the checksum was mended by hand, columns, types and errors are those of a run."""
    table = _table(file, digest)
    if tuple(table.columns) != EPOCH_COLUMNS or not isinstance(table.index, pd.RangeIndex):
        found = f"columns {', '.join(table.columns)} found, must be {', '.join(EPOCH_COLUMNS)}"
        raise UserError(f"{file}: {found}, and no line may have more")
    for column, (kind, is_kind) in EPOCH_TYPES.items():
        if not is_kind(table[column]):
            raise UserError(f"{file}: {column} is not {kind} in every line")
    wrong = table[~table["test_error"].between(0, 100)]
    if len(wrong):
        line, error = wrong.index[0] + 2, wrong["test_error"].iloc[0]
        raise UserError(f"{file}: line {line}: test_error {error:g} found, must be from 0 to 100")
    return table


def _table(file: Path, digest: Any) -> pd.DataFrame:
    try:
        csv = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    if digest != _sha256(csv):
        raise UserError(f"{file}: changed since the run was stored")
    try:
        return pd.read_csv(StringIO(csv))
    except ValueError as error:  # pandas' errors, too
        raise UserError(f"{file}: no table: {error}") from None
