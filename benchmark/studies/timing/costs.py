"""Measured costs, and the files below a results folder that hold them: one a device, one line a measurement.

timing/table3-<device>.csv     what Table 3 is rebuilt from
timing/study-<device>.csv      what the scaling figure is rebuilt from
"""

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

Implementation = Literal["replica axis", "compiled", "eager", "eager as released"]
"""This project's training, plain or by `torch.compile`; or one seed at a time as in `baseline.py` (without or
with the released code's products with identity matrices)."""
BASELINES = ("eager", "eager as released")
Kind = Literal["table3", "study"]


class Cost(BaseModel):
    """What training one method on one network costs; the columns of the files, in their order.

    A measurement that was skipped has a reason in `skipped`, and None from `blocks` on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    """The row's label."""
    implementation: Implementation = "replica axis"
    precision: Precision = Precision.HIGHEST
    """Of matrix products."""
    dataset: str
    """Whose shape the samples have; the pixels are random, on which timing does not depend."""
    inputs: PositiveInt
    hidden_layers: NonNegativeInt
    width: PositiveInt
    """Of the hidden layers."""
    classes: PositiveInt
    batch_size: PositiveInt
    feedback_updates: NonNegativeInt
    """In every iteration; 0 for a method that learns no feedback."""
    replicas: PositiveInt
    samples: PositiveInt
    """Of an epoch."""
    multiply_adds: PositiveInt | None = None
    """That matrix products of the method need, per sample and replica; None if they cannot be counted."""
    device: str
    torch_version: str
    commit: str
    """Of the code that was measured."""
    measured: str
    """When the command began, in UTC: the same for all that was measured in one run."""
    skipped: str = ""
    """Why it was not measured."""
    blocks: PositiveInt | None = None
    """Of consecutive iterations, between two synchronisations of the device."""
    iterations: PositiveInt | None = None
    """In each block; two or three more before the first, not counted, warm up."""
    seconds_per_epoch: PositiveFloat | None = None
    """Of all replicas together: the median over blocks, scaled to an epoch. Training only, neither evaluation
    nor feedback pre-training."""
    std: NonNegativeFloat | None = None
    """Sample standard deviation (n - 1) over blocks, scaled alike."""
    spread: NonNegativeFloat | None = None
    """Interquartile range over blocks, scaled alike."""
    matmul_gflops: PositiveFloat | None = None
    """The machine's rate in matrix products, measured before and after; 2 flops a multiply-add."""
    bandwidth_gbs: PositiveFloat | None = None
    """The machine's rate of copying, in 1e9 bytes read or written a second."""
    gbytes: NonNegativeFloat | None = None
    """1e9 bytes of the factors and results of the matrix products of one iteration, all replicas."""
    peak_gib: NonNegativeFloat | None = None
    """Memory taken by building and training; None where the system does not tell."""

    @classmethod
    def of(
        cls, run: Run, implementation: Implementation, *, samples: int, device: torch.device, began: str
    ) -> Cost:
        """What is known before measuring."""
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
        """Seconds per epoch of all replicas: median and deviation over blocks of iterations, scaled to
        an epoch; None where it was not measured."""
        return None if self.seconds_per_epoch is None else Estimate(self.seconds_per_epoch, self.std or 0.0)

    @property
    def _flops_per_epoch(self) -> float | None:
        return None if self.multiply_adds is None else 2.0 * self.multiply_adds * self.samples * self.replicas

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gflops(self) -> float | None:
        """The rate at which the needed multiply-adds were done."""
        if self._flops_per_epoch is None or self.seconds_per_epoch is None:
            return None
        return 1e-9 * self._flops_per_epoch / self.seconds_per_epoch

    @computed_field  # type: ignore[prop-decorator]
    @property
    def matmul_share(self) -> float | None:
        """`gflops` of the machine's."""
        if self.gflops is None or self.matmul_gflops is None:
            return None
        return self.gflops / self.matmul_gflops

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bound(self) -> float | None:
        """Seconds an epoch takes at least: needed flops at the matrix-product rate, or the bytes of the
        matrix products, each factor and result moved once, at the bandwidth, whichever is more."""
        if self._flops_per_epoch is None or not self.matmul_gflops or not self.bandwidth_gbs:
            return None
        moved = (self.gbytes or 0.0) * self.samples / self.batch_size
        return max(1e-9 * self._flops_per_epoch / self.matmul_gflops, moved / self.bandwidth_gbs)

    @property
    def bound_per_replica(self) -> float | None:
        return None if self.bound is None else self.bound / self.replicas

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bound_share(self) -> float | None:
        """`bound` of `seconds_per_epoch`: 1 is as fast as the machine can."""
        if self.bound is None or self.seconds_per_epoch is None:
            return None
        return self.bound / self.seconds_per_epoch

    @property
    def dims(self) -> list[int]:
        """Layer widths: input, hidden..., classes."""
        return [self.inputs, *[self.width] * self.hidden_layers, self.classes]

    @property
    def how(self) -> str:
        """How the time was taken."""
        if self.blocks is None or self.iterations is None:
            return ""
        return f"{self.blocks} x {self.iterations} iterations"

    def fits(self, run: Run) -> bool:
        """Whether it was measured on the network and minibatch of `run`; replicas may differ."""
        planned = (run.row, run.column, run.dims, run.batch_size, feedback_updates(run))
        return (self.method, self.dataset, self.dims, self.batch_size, self.feedback_updates) == planned


def feedback_updates(run: Run) -> int:
    """Feedback updates in every iteration of a run."""
    return run.options.get("feedback_updates", 0) if METHODS[run.method].learns_feedback else 0


COLUMNS = (*Cost.model_fields, *Cost.model_computed_fields)


def file_of(root: Path, kind: Kind, device: str) -> Path:
    """Where the measurements of a device lie below a results folder."""
    return root / "timing" / f"{kind}-{slug(device)}.csv"


def frame(costs: Sequence[Cost]) -> pd.DataFrame:
    """One row a measurement, columns `COLUMNS`."""
    return pd.DataFrame([cost.model_dump() for cost in costs], columns=list(COLUMNS))


def write(costs: Sequence[Cost], file: Path) -> None:
    """One line a measurement, six digits."""
    table = frame(costs)
    for column in ("blocks", "iterations", "multiply_adds"):
        table[column] = table[column].astype("Int64")
    with atomic_file(file) as stream:
        stream.write(table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def read(file: Path) -> list[Cost]:
    """The measurements of a file; `UserError` where it does not hold what `write` wrote."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    costs = []
    for number, line in enumerate(lines, 2):
        if tuple(line) != COLUMNS or None in line.values():
            raise UserError(f"{file}, line {number}: other columns than {', '.join(COLUMNS)}")
        given = {name: line[name] for name in Cost.model_fields if line[name] not in ("", None)}
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


def read_all(root: Path, kind: Kind) -> dict[str, list[Cost]]:
    """The measurements below a results folder by device."""
    found: dict[str, list[Cost]] = {}
    for file in sorted(inside(root / "timing")):
        if not file.match(f"{kind}-*.csv"):
            continue
        costs = read(file)
        device = costs[0].device
        if device in found:
            raise UserError(f"{file}: {device} was measured in another file, too")
        found[device] = costs
    return found
