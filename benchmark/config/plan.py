"""Plans (`table2.yaml`, `quick.yaml`, one's own): rows x columns under one protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from benchmark.common.errors import UserError
from benchmark.config.datasets import DatasetConfig
from benchmark.config.files import (
    CONFIGS,
    Names,
    Strict,
    distinct,
    merge,
    read_mapping,
    removes_nothing,
    validated,
)
from benchmark.config.limits import LAST_SEED, MOST_EPOCHS, MOST_LAYERS, MOST_UNITS
from benchmark.config.paper import load_paper_values
from benchmark.engine.measurements import MEASUREMENTS
from benchmark.engine.precision import Precision
from benchmark.methods import METHODS

Source = Literal["paper", "released code", "search", "guess"]
"""Where a value of a plan comes from."""


def _inside(directory: str) -> str:
    if not re.fullmatch(r"\.|[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", directory):
        raise ValueError(
            f"{directory!r} found; a folder below the results, named in letters, digits, - and _"
        )
    taken = ("runs", "partial", "search", "tables", "timing", "figures")
    if set(directory.split("/")) & set(taken):
        raise ValueError(f"{directory!r} found; {', '.join(taken)} are folders inside a results folder")
    return directory


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
    """A column whose hyperparameters serve here where a row names none for this one."""
    addition: bool = False
    """Not in the paper; trained when its data are at hand or it is asked for by name."""


class Hyperparameters(Strict):
    """A row's hyperparameters on one data set, and where they come from."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    source: Source
    note: str | None = None

    @property
    def values(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.__pydantic_extra__.items()}


class Row(Strict):
    """One row of the table: a method, its options and hyperparameters."""

    method: str
    size: Literal["full", "half"] = "full"
    """half: hidden layers have the column's `half_width`."""
    addition: bool = False
    """Not in the paper."""
    paper_row: str | None = None
    """The paper's row whose numbers an addition stands beside."""
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
        for name, value in self.options.items():
            method.check_option(name, value)
        for dataset, given in self.hyperparameters.items():
            unknown = [name for name in given.values if name not in method.hyperparameters]
            missing = [name for name in method.hyperparameters if name not in given.values]
            if unknown or missing:
                takes = f"{self.method} takes {', '.join(method.hyperparameters)}"
                if unknown:  # first: of a mistyped name, what was typed
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
    """Where a measurement (see `measurements.py`) is taken during training."""

    rows: Names
    columns: Names
    """Of which the plan has at most one: what reports show."""


class Sensitivity(Strict):
    """How the configurations behind Figure 3 are trained."""

    epochs: int | None = Field(default=None, gt=0, le=MOST_EPOCHS)
    """Other than the protocol's."""
    note: str | None = None


class PlanConfig(Strict):
    """A table to train: rows x columns under one protocol."""

    resolved = ("base",)
    title: str = Field(pattern=r"\S")
    comparable: bool = True
    """Whether its numbers may stand beside the paper's; if a plan does not say: whether it trains and judges
    what it has in common with the shipped Table 2 as that does."""
    directory: Annotated[str, AfterValidator(_inside)] = "."
    """Where its results go, below the results folder."""
    protocol: Protocol
    networks: dict[str, NetworkConfig]
    columns: dict[str, Column] = Field(min_length=1)
    rows: dict[str, Row] = Field(min_length=1)
    measure: dict[str, Measure] = {}
    margins: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """By data set, in points of test error: differences below it do not matter (see `statistics.py`)."""
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
        """The measurements taken while the row trains on the column."""
        return [n for n, where in self.measure.items() if row in where.rows and column in where.columns]

    def is_addition(self, row: str, column: str) -> bool:
        """Whether the cell is not one of the paper's."""
        return self.rows[row].addition or self.columns[column].addition

    def hyperparameters(self, row: str, column: str) -> Hyperparameters | None:
        """What the row uses on the column, or on that whose values it takes; None without a cell."""
        given = self.rows[row].hyperparameters
        return next((given[place] for place in self.values_of(column) if place in given), None)

    def values_of(self, column: str) -> list[str]:
        """The data sets whose hyperparameters serve on a column, its own first; a row's first one counts."""
        found: list[str] = []
        place: str | None = column
        while place is not None and place not in found:
            found.append(place)
            place = self.columns[place].hyperparameters_from if place in self.columns else None
        return found

    def dims(self, row: str, column: str, dataset: DatasetConfig) -> list[int]:
        """Layer widths of the row's network on the column: input, hidden..., classes."""
        network = self.networks[self.columns[column].network]
        half = self.rows[row].size == "half"
        width = self.columns[column].half_width or network.width if half else network.width
        return [dataset.inputs, *[width] * network.hidden_layers, dataset.classes]


def plan_file(plan: str) -> Path:
    """The file of a plan given by name (`table2`) or by path."""
    if plan.endswith((".yaml", ".yml")):
        return Path(plan)
    file = CONFIGS / f"{plan}.yaml"
    if not file.is_file():
        raise UserError(f"unknown plan {plan!r}, allowed: {known_plans()}")
    return file


def known_plans() -> str:
    """What a plan may be called by."""
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml") if _holds_plan(path))
    return f"{', '.join(known)}, or a path ending in .yaml"


def _holds_plan(file: Path) -> bool:
    try:
        return bool({"base", "columns"} & set(read_mapping(file)))
    except UserError:  # said to whoever names this one
        return False


def _resolved(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's mapping with its `base` files merged in below it."""
    content = read_mapping(file)
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str) or not base:
        raise UserError(f"{file}: base: {base!r} found; the name of a YAML file beside it expected")
    parent = file.parent / base
    if parent.resolve() in (*above, file.resolve()):
        raise UserError(f"{file}: base: {base} leads back to this file")
    if not parent.is_file():
        raise UserError(f"{file}: base: {parent} does not exist; a path from this file's folder expected")
    below = _resolved(parent, (*above, file.resolve()))
    if unknown := [key for key in content if key not in PlanConfig.model_fields]:
        allowed = ", ".join([*PlanConfig.resolved, *PlanConfig.model_fields])
        raise UserError(f"{file}: {unknown[0]}: unknown key, allowed: {allowed}")
    for path, there in removes_nothing(below, content):
        what = f"there is none in {base}" + (f", which has {', '.join(there)}" if there else "")
        raise UserError(f"{file}: {path}: null removes what the base has, and {what}")
    _refuse_another_method(file, base, below, content)
    _without_old_notes(file, below, content)
    rows = content.get("rows")
    dropped = [name for name, row in rows.items() if row is None] if isinstance(rows, dict) else []
    if "measure" in below:
        below["measure"] = _measure_without(dropped, below["measure"])
    return merge(below, content)


def _refuse_another_method(file: Path, base: str, below: dict[str, Any], content: dict[str, Any]) -> None:
    """`UserError` for a base's row that becomes another method's, with values found for the first."""
    methods = {
        row: entry.get("method") for row, entry in _items(below.get("rows")) if isinstance(entry, dict)
    }
    for row, entry in _items(content.get("rows")):
        there, here = methods.get(row), entry.get("method") if isinstance(entry, dict) else None
        if None not in (there, here) and here != there:
            raise UserError(
                f"{file}: rows.{row}.method: {here!r} found, but this row of {base} is {there!r}, and a row "
                "keeps of its base what is not said anew; give yours a label of its own"
            )


def _without_old_notes(file: Path, below: dict[str, Any], content: dict[str, Any]) -> None:
    """Take from a base's hyperparameters the notes on values that the plan changes; `UserError` for a plan
    that does not say where its own come from."""
    of_base = dict(_hyperparameters(below))
    for place, given in _hyperparameters(content):
        there = of_base.get(place, {})
        numbers = [key for key in there if key not in ("source", "note")]
        changed = [key for key in numbers if given.get(key) not in (None, there[key])]
        if changed and "source" not in given:
            raise UserError(
                f"{file}: {place}: {changed[0]} is not the base's, so its `source` must be said, too: "
                f"{', '.join(get_args(Source))}"
            )
        if changed and "note" in there:
            given.setdefault("note", None)  # which removes the base's


def _hyperparameters(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key path and entry; what is malformed is left for the schema to name."""
    for row, entry in _items(content.get("rows")):
        for column, given in _items(entry.get("hyperparameters") if isinstance(entry, dict) else None):
            if isinstance(given, dict):
                yield f"rows.{row}.hyperparameters.{column}", given


def _items(found: Any) -> Iterable[tuple[str, Any]]:
    return found.items() if isinstance(found, dict) else ()


def _measure_without(rows: list[str], measure: Any) -> Any:
    """What a base measures, less these rows of it; what is malformed stays, for the schema to name."""
    if not isinstance(measure, dict):
        return measure
    left = {}
    for name, where in measure.items():
        if isinstance(where, dict) and isinstance(where.get("rows"), list):
            kept = [row for row in where["rows"] if row not in rows]
            if where["rows"] and not kept:
                continue
            where = {**where, "rows": kept}
        left[name] = where
    return left


def _as_table2(plan: PlanConfig) -> bool:
    """Whether the plan trains what it has in common with the shipped Table 2, and judges it, as that does.

    Hyperparameters do not count: the paper says nothing of them.
    """

    def experiments(config: PlanConfig) -> dict[tuple[str, str], Any]:
        found: dict[tuple[str, str], Any] = {
            ("protocol", ""): config.protocol.model_dump(exclude={"source", "note"})
        }
        for name, row in config.rows.items():
            found["rows", name] = (row.method, row.size, row.all_options, row.paper_row or name)
        for name, column in config.columns.items():
            network = config.networks[column.network].model_dump(exclude={"source"})
            found["columns", name] = (network, config.margins.get(name))
        return found

    file = CONFIGS / "table2.yaml"
    table2 = experiments(validated(PlanConfig, _resolved(file), file))
    ours = experiments(plan)
    return all(ours[place] == table2[place] for place in ours.keys() & table2.keys())


def load_plan(plan: str, datasets: Mapping[str, DatasetConfig]) -> PlanConfig:
    """A plan by name or path, its columns checked against the known data sets."""
    file = plan_file(plan)
    content = _resolved(file)
    config = validated(PlanConfig, content, file)
    if "comparable" not in content:
        config = config.model_copy(update={"comparable": _as_table2(config)})
    allowed = ", ".join(datasets)
    for name, column in config.columns.items():
        if name not in datasets:
            raise UserError(f"{file}: columns.{name}: unknown data set, allowed: {allowed}")
        if column.hyperparameters_from not in (None, *datasets):
            raise UserError(
                f"{file}: columns.{name}.hyperparameters_from: unknown data set "
                f"{column.hyperparameters_from!r}, allowed: {allowed}"
            )
        if column.hyperparameters_from == name:
            raise UserError(
                f"{file}: columns.{name}.hyperparameters_from: {name!r} found, must be another data set"
            )
    printed = load_paper_values()["table2"].cells
    for name, row in config.rows.items():
        if row.paper_row not in (None, *printed):
            raise UserError(
                f"{file}: rows.{name}.paper_row: {row.paper_row!r} found, allowed: {', '.join(printed)}"
            )
        # It would be corrected together with the paper's rows, and weaken what is said of them.
        if config.comparable and name not in printed and not row.addition:
            raise UserError(
                f"{file}: rows.{name}: the paper's Table 2 has no such row; it needs `addition: true` (also "
                f"beside a `paper_row`), or one of the paper's labels: {', '.join(printed)}"
            )
    # Of data sets, not of this plan's columns: a plan on top of another may have dropped some.
    places = [(f"rows.{label}.hyperparameters", list(r.hyperparameters)) for label, r in config.rows.items()]
    places += [(f"measure.{label}.columns", where.columns) for label, where in config.measure.items()]
    for path, names in [*places, ("margins", list(config.margins))]:
        for name in names:
            if name not in datasets:
                raise UserError(f"{file}: {path}.{name}: unknown data set, allowed: {allowed}")
    measure = {}
    for name, where in config.measure.items():
        kept = [column for column in where.columns if column in config.columns]
        if len(kept) > 1:
            raise UserError(f"{file}: measure.{name}.columns: {', '.join(kept)} found, one allowed")
        rows = [row for row in where.rows if kept and config.hyperparameters(row, kept[0])]
        if rows:
            measure[name] = where.model_copy(update={"rows": rows, "columns": kept})
    return config.model_copy(update={"measure": measure})
