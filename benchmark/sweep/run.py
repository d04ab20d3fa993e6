"""A run: one row on one data set, with everything that determines its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmark.engine.settings import MEASUREMENTS, SEMANTICS, Compile, Execution, Precision
from benchmark.methods import METHODS, Method
from benchmark.methods.sizes import weight_count
from benchmark.store.record import key_of

if TYPE_CHECKING:
    import torch

MOST_PER_WEIGHT = 200
"""Multiply-adds per sample and encoder weight that no rule exceeds: three times those of DRL."""


@dataclass(frozen=True)
class Run:
    """A row of the plan on one data set, with one replica for each seed."""

    row: str
    column: str
    """The name of the data set."""
    method: str
    options: dict[str, Any]
    hyperparameters: Mapping[str, float | list[float]]
    """Each is one number for all replicas, or a list with one number for each replica."""
    dims: list[int]
    seeds: list[int]
    """One for each replica, sorted: the order of the replicas changes nothing."""
    epochs: int
    batch_size: int
    precision: Precision
    image: list[int]
    checksum: str | None
    """Checksum of the data set, if `datasets.yaml` declares one."""
    measure: tuple[str, ...] = ()
    """The measurements taken during training (`MEASUREMENTS` in `benchmark/engine/settings.py`)."""

    @property
    def spec(self) -> dict[str, Any]:
        """Everything that can change the numbers. The key is its hash."""
        spec = {
            "semantics": SEMANTICS,
            "method": self.method,
            "version": METHODS[self.method].version,
            "options": self.options,
            "hyperparameters": dict(self.hyperparameters),
            "dims": self.dims,
            "dataset": {"name": self.column, "image": self.image, "checksum": self.checksum},
            "seeds": self.seeds,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "precision": "float32" if self.precision is Precision.HIGHEST else self.precision.value,
        }
        if self.measure:
            spec["measure"] = {name: MEASUREMENTS[name].version for name in self.measure}
        return spec

    @classmethod
    def of(cls, row: str, spec: Mapping[str, Any]) -> Run:
        """Build the run that a stored specification describes, without its measurements."""
        return cls(
            row=row,
            column=spec["dataset"]["name"],
            method=spec["method"],
            options=spec["options"],
            hyperparameters=spec["hyperparameters"],
            dims=spec["dims"],
            seeds=spec["seeds"],
            epochs=spec["epochs"],
            batch_size=spec["batch_size"],
            precision=Precision.HIGHEST if spec["precision"] == "float32" else Precision(spec["precision"]),
            image=spec["dataset"]["image"],
            checksum=spec["dataset"]["checksum"],
        )

    @property
    def key(self) -> str:
        """The name of the run in the store: a hash of its specification."""
        return key_of(self.spec)

    @property
    def unmeasured(self) -> Run:
        """The same run without measurements. It has the same test errors."""
        return replace(self, measure=())

    @property
    def keys(self) -> list[str]:
        """The keys of stored runs with these test errors: its own key, then that without measurements."""
        return list(dict.fromkeys((self.key, self.unmeasured.key)))

    @property
    def total_epochs(self) -> int:
        """Number of epochs, including feedback pre-training."""
        return self.epochs + METHODS[self.method].pretraining_epochs(self.options)

    def passes(self, size: int) -> list[Run]:
        """Split the run into passes of `size` replicas; the last one may be smaller."""
        parts = []
        for first in range(0, len(self.seeds), size):
            window = slice(first, first + size)
            values = {
                name: value[window] if isinstance(value, list) else value
                for name, value in self.hyperparameters.items()
            }
            parts.append(replace(self, seeds=self.seeds[window], hyperparameters=values))
        return parts

    def epochs_done(self, size: int, number: int, completed: int) -> float:
        """Mean number of epochs over all replicas, when pass `number` (from 0) has done `completed`."""
        part = self.seeds[number * size : (number + 1) * size]
        return (number * size * self.total_epochs + len(part) * completed) / len(self.seeds)

    def multiply_adds(self, samples: int) -> float | None:
        """Multiply-adds of training on so many samples, without pre-training. None if unknown."""
        from benchmark.engine import flops  # needs torch

        per_sample = flops.multiply_adds(METHODS[self.method], self.dims, self.options)
        return None if per_sample is None else float(per_sample) * samples * self.epochs * len(self.seeds)

    def execution(self, setting: Compile, samples: int, device: torch.device) -> Execution:
        """How iterations on so many samples run. Multiply-adds are only counted if the run may be long."""
        from benchmark.engine.execution import WORTHWHILE, execution  # needs torch

        at_most = MOST_PER_WEIGHT * weight_count(self.dims) * samples * self.epochs * len(self.seeds)
        may_compile = setting is Compile.AUTO and device.type == "cpu" and at_most >= WORTHWHILE
        return execution(setting, self.multiply_adds(samples) if may_compile else None, device)

    def build(self, device: torch.device | str) -> Method:
        """Build the method with freshly initialised networks."""
        from benchmark.engine.build import build  # needs torch

        method = METHODS[self.method]
        return build(method, self.dims, self.seeds, self.hyperparameters, self.options, device=device)


def differences(stored: Mapping[str, Any], planned: Mapping[str, Any], path: str = "") -> str:
    """How a stored specification differs from the planned one: `lr 0.1 instead of 0.2, ...`."""
    parts = []
    for name in sorted({*stored, *planned}):
        old, new = stored.get(name), planned.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if old != new:
                parts.append(differences(old, new, f"{path}{name}."))
        elif old != new:
            parts.append(f"{path}{name} {old} instead of {new}")
    return ", ".join(parts)
