"""The store under `results/`: where complete runs and checkpoints lie.

    runs/<data set>/<row>-<key>/run.yaml     what was run, when, on what, and a checksum of
    runs/<data set>/<row>-<key>/epochs.csv   every epoch's train loss and test error per seed
    runs/<data set>/<row>-<key>/<name>.csv   what a measurement (see measurements.py) saw, per epoch and seed
    partial/<key>/checkpoint.pt              a run under way (not for version control)

A run appears under `runs/` by one rename, when it is complete. Its key is a hash of everything that can
change its numbers and of nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from benchmark.common.errors import Unreadable, UserError
from benchmark.common.files import atomic_file, existing, inside, refuse_unwritable, sync
from benchmark.config.datasets import NAME as DATASET_NAME
from benchmark.store.record import StoredRun, files_of, key_of, read_run, record_of, slug

_DIGEST = hashlib.sha256().digest_size  # a checkpoint begins with that of the rest


class Store:
    """Complete and partial runs below one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path | None:
        """Where a complete run lies, or None; of several copies, an intact one where it belongs."""
        return _used(self.root / "runs", key)

    def spec(self, folder: Path) -> dict[str, Any]:
        """The specification in a run's record, unchecked; `UserError` if there is none."""
        return record_of(folder)["spec"]

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
            # Nothing left to continue: the folder goes too, while nobody else can hold the run.
            if not (lock.parent / "checkpoint.pt").exists():
                shutil.rmtree(lock.parent, ignore_errors=True)
            held.release()

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        """The newest state of a run under way, or None."""
        file = self.partial(key) / "checkpoint.pt"
        if file not in inside(file.parent):
            return None
        import torch

        try:
            content = file.read_bytes()
            if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
                raise ValueError("checksum")  # torch.load does not notice changed weights
            state: dict[str, Any] = torch.load(
                BytesIO(content[_DIGEST:]), weights_only=True, map_location="cpu"
            )
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            if not os.path.lexists(file):  # finished meanwhile, by the process that held it
                return None
            if isinstance(error, PermissionError):
                raise Unreadable(f"{file}: cannot be read: {error.strerror}") from None
            raise UserError(
                f"{file} is damaged ({type(error).__name__}); delete it to start this run again"
            ) from None
        return state

    def save_checkpoint(self, key: str, state: Mapping[str, Any]) -> None:
        """Replace a run's checkpoint in one step."""
        import torch

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
        new = Path(tempfile.mkdtemp(dir=self.partial(key)))
        new.chmod(0o755)
        for name, content in files_of(label, record, epochs, measured or {}).items():
            with atomic_file(new / name) as stream:
                stream.write(content.encode())
        if not target.exists():
            os.rename(new, target)
            sync(target.parent)
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


def _read(folder: Path, runs: Path) -> StoredRun:
    try:
        run = read_run(folder)
    except Unreadable:  # nothing to delete
        raise
    except UserError as error:
        deeper = [file.parent for file in folder.glob("*/**/run.yaml")]
        advice = (
            f"move out what it holds, such as {deeper[0]}" if deeper else "delete it to train this run again"
        )
        raise UserError(f"{error}; restore {folder}, or {advice}") from None
    used = _used(runs, run.record["key"])
    if folder != used or not _belongs(folder, run.record):
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
        if re.fullmatch(DATASET_NAME, path.name) and not (path.suffix and path.is_file())
    ]


def _in_place(folder: Path) -> bool:
    """Whether the run in a folder belongs there."""
    try:
        return _belongs(folder, record_of(folder))
    except UserError:
        return False


def _belongs(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether runs with this record's key and data set are looked for in the folder, whatever its label."""
    return (
        folder.name.endswith(f"-{record['key']}") and folder.parent.name == record["spec"]["dataset"]["name"]
    )


def _intact(folder: Path) -> bool:
    try:
        read_run(folder)
    except UserError:
        return False
    return True


def _where_to(run: StoredRun, used: Path | None, runs: Path) -> str:
    """What to do with an intact run that is not the one that is read."""
    if used is None or used == run.folder or not _in_place(used):
        home = runs / run.column / f"{slug(run.record['label'])}-{run.record['key']}"
        first = ", once what is there is out of the way" if home.exists() else ""
        return f"not where this run is looked for; move it to {home}{first}"
    if not _intact(used):
        return f"not where this run is looked for; let it replace {used}, which is damaged"
    ours, theirs = ((r["data"]["checksum"], r["epochs_sha256"]) for r in (run.record, record_of(used)))
    if ours != theirs:
        return f"the same run as {used}, trained another time, and not looked at; keep one of them"
    return f"a copy of {used}, not looked at; delete this one"
