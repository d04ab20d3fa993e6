"""Plans (`table2.yaml`, `quick.yaml`, your own): rows and data sets under one protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from benchmark.config.datasets import DatasetConfig
from benchmark.config.files import (
    Names,
    Strict,
    distinct,
)
from benchmark.config.limits import LAST_SEED, MOST_EPOCHS, MOST_LAYERS, MOST_UNITS
from benchmark.engine.settings import MEASUREMENTS, Precision
from benchmark.methods import METHODS

Source = Literal["paper", "released code", "search", "guess"]
"""Where a value of a plan comes from."""


Seeds = Annotated[
    list[Annotated[int, Field(ge=0, le=LAST_SEED)]], Field(min_length=1), AfterValidator(distinct)
]


class Protocol(Strict):
    """How every run of a plan is trained."""

    epochs: int = Field(gt=0, le=MOST_EPOCHS)
    batch_size: int = Field(gt=0, le=MOST_UNITS)
    seeds: Seeds
    precision: Precision = Precision.HIGHEST
    source: Source
    note: str | None = None


class NetworkConfig(Strict):
    """Hidden layers of equal width."""

    hidden_layers: int = Field(gt=0, le=MOST_LAYERS)
    width: int = Field(gt=0, le=MOST_UNITS)
    source: Source


class Column(Strict):
    """One data set of the table."""

    network: str
    half_width: int | None = Field(default=None, gt=0, le=MOST_UNITS)
    """Width of the hidden layers in rows of `size: half`."""
    hyperparameters_from: str | None = None
    """The data set whose hyperparameters a row uses here if it has none for this one."""
    addition: bool = False
    """Not in the paper. Trained if its data are there or if it is named."""


class Hyperparameters(Strict):
    """The hyperparameters of a row on one data set, and where they come from."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    options: dict[str, Any] = {}
    """Options of the row that differ on this data set."""
    source: Source
    note: str | None = None

    @property
    def values(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.__pydantic_extra__.items()}


class Row(Strict):
    """One row of the table: a method, its options and hyperparameters."""

    method: str
    size: Literal["full", "half"] = "full"
    """half: hidden layers have the data set's `half_width`."""
    addition: bool = False
    """Not in the paper."""
    paper_row: str | None = None
    """The paper's row that an addition is shown beside."""
    options: dict[str, Any] = {}
    hyperparameters: dict[str, Hyperparameters]

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}, allowed: {', '.join(METHODS)}")
        return name

    @model_validator(mode="after")
    def _taken(self) -> Row:
        method = METHODS[self.method]
        method.check_options(self.options, "options")
        for dataset, given in self.hyperparameters.items():
            method.check_options(given.options, f"hyperparameters.{dataset}.options")
            unknown = [name for name in given.values if name not in method.hyperparameters]
            missing = [name for name in method.hyperparameters if name not in given.values]
            if unknown or missing:
                takes = f"{self.method} takes {', '.join(method.hyperparameters)}"
                if unknown:  # of a mistyped name, say what was typed
                    raise ValueError(
                        f"hyperparameters.{dataset}.{unknown[0]} is not a hyperparameter; {takes}"
                    )
                raise ValueError(f"hyperparameters.{dataset}.{missing[0]} is missing; {takes}")
        return self

    @property
    def all_options(self) -> dict[str, Any]:
        """The options with the method's defaults filled in."""
        return {**METHODS[self.method].options, **self.options}


class Measure(Strict):
    """Where a measurement (see `benchmark/engine/jacobian.py`) is taken during training."""

    rows: Names
    columns: Names
    """Of these data sets the plan has at most one."""


class Sensitivity(Strict):
    """How the configurations behind Figure 3 are trained."""

    epochs: int | None = Field(default=None, gt=0, le=MOST_EPOCHS)
    """Number of epochs, if it is not the protocol's."""
    note: str | None = None


class PlanConfig(Strict):
    """A table to train: rows and data sets (columns) under one protocol."""

    resolved = ("base",)
    title: str = Field(pattern=r"\S")
    comparable: bool = True
    """Whether its numbers can be compared with the paper's.

    If a plan does not say so, it is comparable if it trains and judges the cells that it shares with the
    shipped Table 2 in the same way."""
    directory: str = Field(default=".", pattern=r"^(\.|[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)$")
    """The folder of the results, below the results folder."""
    protocol: Protocol
    networks: dict[str, NetworkConfig]
    columns: dict[str, Column] = Field(min_length=1)
    rows: dict[str, Row] = Field(min_length=1)
    measure: dict[str, Measure] = {}
    margins: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """Margin for each data set, in points of test error. Smaller differences do not matter."""
    sensitivity: Sensitivity = Sensitivity()

    @model_validator(mode="after")
    def _references(self) -> PlanConfig:
        for name, column in self.columns.items():
            if column.network not in self.networks:
                raise ValueError(
                    f"columns.{name}.network: unknown network {column.network!r}, "
                    f"allowed: {', '.join(self.networks)}"
                )
            if column.half_width is None:
                half = [row for row, entry in self.rows.items() if entry.size == "half"]
                if trained := [row for row in half if self.hyperparameters(row, name)]:
                    raise ValueError(f"columns.{name}.half_width is missing; {trained[0]} needs it")
        for name, where in self.measure.items():
            for key, found, allowed in (
                ("", [name], MEASUREMENTS),
                (f"{name}.rows", where.rows, self.rows),
            ):
                for unknown in [entry for entry in found if entry not in allowed]:
                    path = f"measure.{key}".rstrip(".")
                    raise ValueError(f"{path}: unknown {unknown!r}, allowed: {', '.join(allowed)}")
            for row in where.rows:
                if METHODS[self.rows[row].method].feedback != "decoders":
                    raise ValueError(f"measure.{name}.rows: {row} has no decoders to measure")
        return self

    def measured(self, row: str, column: str) -> list[str]:
        """The measurements that are taken while the row trains on a data set."""
        return [n for n, where in self.measure.items() if row in where.rows and column in where.columns]

    def is_addition(self, row: str, column: str) -> bool:
        """Whether the cell is not one of the paper's."""
        return self.rows[row].addition or self.columns[column].addition

    def hyperparameters(self, row: str, column: str) -> Hyperparameters | None:
        """The hyperparameters of the row on a data set, or None if it has none."""
        given = self.rows[row].hyperparameters
        return next((given[place] for place in self.values_of(column) if place in given), None)

    def values_of(self, column: str) -> list[str]:
        """The data sets whose hyperparameters may be used on one, in the order in which they are tried."""
        found: list[str] = []
        place: str | None = column
        while place is not None and place not in found:
            found.append(place)
            place = self.columns[place].hyperparameters_from if place in self.columns else None
        return found

    def dims(self, row: str, column: str, dataset: DatasetConfig) -> list[int]:
        """Layer widths of the row's network on a data set: input, hidden..., classes."""
        network = self.networks[self.columns[column].network]
        half = self.rows[row].size == "half"
        width = self.columns[column].half_width or network.width if half else network.width
        return [dataset.inputs, *[width] * network.hidden_layers, dataset.classes]
