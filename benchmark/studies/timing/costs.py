"""Measured training times, and their CSV files: `timing/table3-<device>.csv` below a results folder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    computed_field,
)

from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file, inside
from benchmark.common.statistics import Estimate
from benchmark.engine.flops import multiply_adds
from benchmark.engine.settings import Precision
from benchmark.methods import METHODS
from benchmark.store.record import slug
from benchmark.sweep.run import Run

Implementation = Literal["replica axis", "compiled"]
"""How an iteration runs: plain (on a GPU, as CUDA graphs), or by `torch.compile`."""


class Cost(BaseModel):
    """The measured training time of one method on one network. The fields are the columns of the files.

    If the measurement was skipped, `skipped` says why, and the fields from `blocks` on are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    """Label of the row."""
    implementation: Implementation = "replica axis"
    precision: Precision = Precision.HIGHEST
    """Precision of matrix products."""
    dataset: str
    """The data set whose shape the samples have. The pixels are random."""
    inputs: PositiveInt
    hidden_layers: NonNegativeInt
    width: PositiveInt
    """Width of the hidden layers."""
    classes: PositiveInt
    batch_size: PositiveInt
    feedback_updates: NonNegativeInt
    """Feedback updates in every iteration; 0 for a method that learns no feedback."""
    replicas: PositiveInt
    samples: PositiveInt
    """Training samples of an epoch."""
    multiply_adds: PositiveInt | None = None
    """Multiply-adds of the matrix products, per sample and replica; None if they cannot be counted."""
    device: str
    torch_version: str
    commit: str
    """Commit of the measured code."""
    measured: str
    """Start of the command, in UTC: the same for all measurements of one command."""
    skipped: str = ""
    """Reason why there is no measurement."""
    blocks: PositiveInt | None = None
    """Number of timed blocks. The device is synchronised before and after each block."""
    iterations: PositiveInt | None = None
    """Consecutive iterations in each block."""
    seconds_per_epoch: PositiveFloat | None = None
    """Median over blocks, scaled to an epoch, of all replicas together. Evaluation and feedback pre-training
    are not included."""
    std: NonNegativeFloat | None = None
    """Sample standard deviation (n - 1) over blocks, scaled alike."""
    matmul_gflops: PositiveFloat | None = None
    """The machine's matrix-product rate, measured before and after. A multiply-add counts as 2 flops."""

    @classmethod
    def of(
        cls, run: Run, implementation: Implementation, *, samples: int, device: torch.device, began: str
    ) -> Cost:
        """Describe a measurement before it is made."""
        return cls(
            method=run.row,
            implementation=implementation,
            precision=run.precision,
            dataset=run.column,
            inputs=run.dims[0],
            hidden_layers=len(run.dims) - 2,
            width=run.dims[1],
            classes=run.dims[-1],
            batch_size=run.batch_size,
            feedback_updates=feedback_updates(run),
            replicas=len(run.seeds),
            samples=samples,
            multiply_adds=multiply_adds(METHODS[run.method], run.dims, run.options),
            device=provenance.device_name(device),
            torch_version=str(torch.__version__),
            commit=provenance.git_commit(),
            measured=began,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def seconds_per_epoch_and_replica(self) -> float | None:
        return None if self.seconds_per_epoch is None else self.seconds_per_epoch / self.replicas

    @property
    def time(self) -> Estimate | None:
        """Seconds per epoch of all replicas, with the standard deviation; None if not measured."""
        return None if self.seconds_per_epoch is None else Estimate(self.seconds_per_epoch, self.std or 0.0)

    @property
    def _flops_per_epoch(self) -> float | None:
        return None if self.multiply_adds is None else 2.0 * self.multiply_adds * self.samples * self.replicas

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gflops(self) -> float | None:
        """The rate at which the method's matrix products were computed."""
        if self._flops_per_epoch is None or self.seconds_per_epoch is None:
            return None
        return 1e-9 * self._flops_per_epoch / self.seconds_per_epoch

    @computed_field  # type: ignore[prop-decorator]
    @property
    def matmul_share(self) -> float | None:
        """The share of the machine's matrix-product rate."""
        if self.gflops is None or self.matmul_gflops is None:
            return None
        return self.gflops / self.matmul_gflops

    @property
    def dims(self) -> list[int]:
        """Layer widths: input, hidden..., classes."""
        return [self.inputs, *[self.width] * self.hidden_layers, self.classes]

    @property
    def how(self) -> str:
        """The number of blocks and iterations, for a table."""
        if self.blocks is None or self.iterations is None:
            return ""
        return f"{self.blocks} x {self.iterations} iterations"

    def fits(self, run: Run) -> bool:
        """Whether the network and minibatch are those of `run`. The number of replicas may differ."""
        planned = (run.row, run.column, run.dims, run.batch_size, feedback_updates(run))
        return (self.method, self.dataset, self.dims, self.batch_size, self.feedback_updates) == planned


def feedback_updates(run: Run) -> int:
    """Count the feedback updates in every iteration of a run."""
    return run.options.get("feedback_updates", 0) if METHODS[run.method].learns_feedback else 0


COLUMNS = (*Cost.model_fields, *Cost.model_computed_fields)


def file_of(root: Path, device: str) -> Path:
    """The file of a device's measurements for Table 3, below a results folder."""
    return root / "timing" / f"table3-{slug(device)}.csv"


def write(costs: Sequence[Cost], file: Path) -> None:
    """Write one line a measurement, with six digits."""
    table = pd.DataFrame([cost.model_dump() for cost in costs], columns=list(COLUMNS))
    for column in ("blocks", "iterations", "multiply_adds"):
        table[column] = table[column].astype("Int64")
    with atomic_file(file) as stream:
        stream.write(table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def read(file: Path) -> list[Cost]:
    """Read the measurements of a file. Other columns, such as those of earlier versions, are ignored.

    `UserError` if a column is missing, a value is not allowed, or the devices differ.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    costs = []
    for number, line in enumerate(lines, 2):
        missing = [name for name in COLUMNS if line.get(name) is None]
        if missing:
            raise UserError(f"{file}, line {number}: no value for {', '.join(missing)}")
        given = {name: line[name] for name in Cost.model_fields if line[name]}
        try:
            costs.append(Cost.model_validate(given))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            found = "" if first["type"] == "missing" else f"{first['input']!r} found: "
            raise UserError(f"{file}, line {number}: {where}: {found}{first['msg']}") from None
    if not costs:
        raise UserError(f"{file}: holds no measurement; restore it, or delete it")
    if len({cost.device for cost in costs}) != 1:
        raise UserError(f"{file}: measurements of one device expected")
    return costs


def read_all(root: Path) -> dict[str, list[Cost]]:
    """Read the measurements for Table 3 below a results folder, by device."""
    found: dict[str, list[Cost]] = {}
    for file in sorted(inside(root / "timing")):
        if not file.match("table3-*.csv"):
            continue
        costs = read(file)
        device = costs[0].device
        if device in found:
            raise UserError(f"{file}: {device} was measured in another file, too")
        found[device] = costs
    return found
