"""A complete run: the record and the tables of its folder, checked as they are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from benchmark.common.errors import UserError
from benchmark.common.files import read_text
from benchmark.config.files import Strict, dump_yaml, read_dumped, validated

EPOCH_COLUMNS = ("epoch", "seed", "train_loss", "test_error", "diverged")


def key_of(spec: Mapping[str, Any]) -> str:
    """Twelve hex digits for a specification (nested mappings of plain values)."""
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def slug(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[\W_]+", "-", label.lower()).strip("-") or "run"


class _Stored(Strict, extra="ignore"):
    """A mapping of a record; newer versions may have added keys."""


class _Versions(_Stored):
    torch: str
    commit: str


class _Sitting(_Stored):
    """One process that trained the run, or a part of it."""

    started: str
    device: str
    versions: _Versions
    # Keys that the first runs lack; nothing reads these defaults.
    execution: Literal["eager", "compiled", "graphed"] = "eager"
    replicas_per_pass: int = Field(default=1, ge=1)
    seeds: list[int] = []
    """Only in a run that was assembled from stored seeds."""


class _Data(_Stored):
    checksum: str
    train_samples: int = Field(ge=1)


class _DatasetSpec(_Stored):
    name: str
    image: list[int]
    checksum: str | None


class _Spec(_Stored):
    """Everything that can change the numbers, see `Run.spec`."""

    semantics: int
    method: str
    version: int
    options: dict[str, Any]
    hyperparameters: dict[str, float | list[float]]
    dims: list[int]
    dataset: _DatasetSpec
    seeds: list[int]
    epochs: int
    batch_size: int
    precision: str
    measure: dict[str, int] = {}


class _Record(_Stored):
    """The contents of `run.yaml`."""

    key: str
    label: str
    row: str
    spec: _Spec
    data: _Data
    finished: str
    training_seconds: float
    sittings: list[_Sitting] = Field(min_length=1)
    epochs_sha256: str
    measured_sha256: dict[str, str] = {}


@dataclass(frozen=True)
class StoredRun:
    """A complete run as read from the store."""

    folder: Path
    record: dict[str, Any]
    epochs: pd.DataFrame
    """Columns `EPOCH_COLUMNS`, one row for each epoch and seed."""
    measured: dict[str, pd.DataFrame]
    """The tables of the measurements, by name."""

    @property
    def spec(self) -> dict[str, Any]:
        return self.record["spec"]

    @property
    def column(self) -> str:
        """The data set's name."""
        return str(self.spec["dataset"]["name"])

    @property
    def final(self) -> pd.DataFrame:
        """The last epoch: one row for each seed, indexed by seed."""
        return self.after(self.spec["epochs"])

    def after(self, epoch: int) -> pd.DataFrame:
        """An epoch (from 1): one row for each seed, indexed by seed."""
        return self.epochs[self.epochs["epoch"] == epoch].set_index("seed")


def check_same_images(runs: Sequence[StoredRun]) -> None:
    """`UserError` if runs on one data set saw different images: they cannot be compared."""
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
    """The contents of a finished run's files, by file name."""
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
    """The record of the run in a folder. `UserError` if it is damaged."""
    file = folder / "run.yaml"
    record: dict[str, Any] = read_dumped(file)
    validated(_Record, record, file)
    try:
        key = key_of(record["spec"])
    except ValueError:  # a NaN
        key = None
    if record["key"] != key:
        raise UserError(f"{file}: the specification does not match the run's key")
    return record


def read_run(folder: Path) -> StoredRun:
    """The run in a folder. `UserError` if its files are damaged."""
    record = record_of(folder)
    epochs = _table(folder / "epochs.csv", record["epochs_sha256"])
    digests = record.get("measured_sha256", {})
    return StoredRun(
        folder,
        record,
        epochs,
        {name: _table(folder / f"{name}.csv", digest) for name, digest in digests.items()},
    )


def _table(file: Path, digest: str) -> pd.DataFrame:
    """The table in a file. `UserError` if it is not the one that was stored."""
    csv = read_text(file)
    if digest != checksum_of(csv):
        raise UserError(f"{file}: changed since the run was stored")
    return pd.read_csv(StringIO(csv))


def checksum_of(text: str) -> str:
    """SHA-256 of a file's text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
