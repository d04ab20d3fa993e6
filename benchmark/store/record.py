"""A complete run as its folder holds it: a record and tables, checked as they are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype
from pydantic import AfterValidator, Field

from benchmark.common.errors import UserError
from benchmark.common.files import read_text
from benchmark.config.datasets import NAME as DATASET_NAME
from benchmark.config.files import Strict, dump_yaml, read_dumped, validated

REQUIRED = {
    *("semantics", "method", "version", "options", "hyperparameters", "dims", "dataset"),
    *("seeds", "epochs", "batch_size", "precision"),
}
"""Of a specification, what reading a run relies on."""


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
    def column(self) -> str:
        """The data set's name."""
        return str(self.spec["dataset"]["name"])

    @property
    def final(self) -> pd.DataFrame:
        """The last epoch, one row a seed, indexed by seed."""
        return self.after(self.spec["epochs"])

    def after(self, epoch: int) -> pd.DataFrame:
        """An epoch from 1 on, one row a seed, indexed by seed."""
        return self.epochs[self.epochs["epoch"] == epoch].set_index("seed")


def check_same_images(runs: Sequence[StoredRun]) -> None:
    """`UserError` where runs on one data set saw different images, and so cannot be compared."""
    seen = {run.record["data"]["checksum"]: run for run in runs}
    if len(seen) > 1:
        saw = ", ".join(f"{run.folder} on {checksum[:12]}..." for checksum, run in seen.items())
        raise UserError(
            f"{runs[0].column}: stored runs were trained on different images: {saw}; delete one kind, or "
            "give the other images a name of their own in datasets.yaml"
        )


def files_of(
    label: str, record: Mapping[str, Any], epochs: pd.DataFrame, measured: Mapping[str, pd.DataFrame]
) -> dict[str, str]:
    """The files of a finished run's folder, by their names."""
    tables = {
        name: table.to_csv(index=False, lineterminator="\n")
        for name, table in {"epochs": epochs[list(EPOCH_COLUMNS)], **measured}.items()
    }
    checksums = {name: checksum_of(table) for name, table in tables.items()}
    full = {"key": key_of(record["spec"]), "label": label, **record, "epochs_sha256": checksums.pop("epochs")}
    if checksums:
        full["measured_sha256"] = checksums
    return {**{f"{name}.csv": table for name, table in tables.items()}, "run.yaml": dump_yaml(full)}


def record_of(folder: Path) -> dict[str, Any]:
    """A run's record, which need not be whole, but names key and data set; `UserError` if it does not."""
    record = read_dumped(folder / "run.yaml")
    spec = record.get("spec") if isinstance(record, dict) else None
    dataset = spec.get("dataset") if isinstance(spec, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else None
    if not isinstance(name, str) or not re.fullmatch(DATASET_NAME, name) or "key" not in record:
        raise UserError(f"{folder / 'run.yaml'}: not the record of a run")
    return record


def read_run(folder: Path) -> StoredRun:
    """The run in a folder, wherever that lies; `UserError` if its files are damaged."""
    record = record_of(folder)
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
    csv = read_text(file)
    if digest != checksum_of(csv):
        raise UserError(f"{file}: changed since the run was stored")
    try:
        return pd.read_csv(StringIO(csv))
    except ValueError as error:  # pandas' errors, too
        raise UserError(f"{file}: no table: {error}") from None


def checksum_of(text: str) -> str:
    """SHA-256 of a file's text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
