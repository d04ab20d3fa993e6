"""The YAML files under `paper_configs/`: what they may hold, and errors that say where they don't."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from benchmark.errors import UserError
from benchmark.measurements import MEASUREMENTS
from benchmark.methods import METHODS
from benchmark.network import half_width
from benchmark.precision import Precision

PROJECT = Path(__file__).resolve().parent.parent
CONFIGS = PROJECT / "paper_configs"

Source = Literal["paper", "released code", "search", "guess"]
"""Where a value of a plan comes from."""


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("the seeds must differ from each other")
    return seeds


def _inside(directory: str) -> str:
    if not re.fullmatch(r"\.|[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", directory):
        raise ValueError(
            f"{directory!r} found; a folder below the results, named in letters, digits, - and _"
        )
    taken = ("runs", "partial", "search", "tables", "timing", "figures")
    if directory.split("/")[0] in taken:
        raise ValueError(f"{directory!r} found; {', '.join(taken)} hold Table 2's results")
    return directory


Names = Annotated[list[str], Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]


Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    # Strict: YAML's 1.5 or "5" is no number of epochs, and "yes" no number at all.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetConfig(_Strict):
    """One entry of `datasets.yaml`."""

    title: str
    kind: Literal["torchvision", "image-folder", "shipped"]
    torchvision: Literal["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"] | None = None
    folder: str | None = None
    archive: str | None = None
    image: list[Annotated[int, Field(gt=0)]] = Field(min_length=3, max_length=3)
    """Channels, height, width."""
    classes: int = Field(gt=1)
    train_samples: int | None = Field(default=None, gt=0)
    """Serves estimates of the time an epoch takes, nothing else."""
    checksum: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        if (self.kind == "torchvision") != (self.torchvision is not None):
            raise ValueError("'torchvision' names the reader of kind: torchvision, and of no other")
        if self.kind != "image-folder" and (self.folder or self.archive):
            raise ValueError("'folder' and 'archive' go with kind: image-folder")
        if self.image[0] not in (1, 3):
            raise ValueError(f"image: {self.image[0]} channels found, 1 or 3 allowed")
        return self

    @property
    def inputs(self) -> int:
        channels, height, width = self.image
        return channels * height * width


class Protocol(_Strict):
    """How every run of a plan is trained."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    seeds: Seeds
    precision: Precision = Precision.HIGHEST
    source: Source
    note: str | None = None


class NetworkConfig(_Strict):
    """Hidden layers of equal width."""

    hidden_layers: int = Field(gt=0)
    width: int = Field(gt=0)
    source: Source


class Column(_Strict):
    """One data set of the table."""

    network: str
    hyperparameters_from: str | None = None
    """A column whose hyperparameters serve here where a row names none for this one."""
    addition: bool = False
    """Not in the paper; trained when its data are at hand or it is asked for by name."""


class Hyperparameters(_Strict):
    """A row's hyperparameters on one data set, and where they come from."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    source: Source
    note: str | None = None

    @property
    def values(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.__pydantic_extra__.items()}


class Row(_Strict):
    """One row of the table: a method, its options and hyperparameters."""

    method: str
    size: Literal["full", "half"] = "full"
    """half: encoders plus decoders have as many weights as the full network's encoders."""
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
            if name not in method.options:
                allowed = ", ".join(method.options) or "none"
                raise ValueError(f"options.{name}: {self.method} takes {allowed}")
            default = method.options[name]
            if type(value) is not type(default):
                raise ValueError(f"options.{name}: {value!r} found, {type(default).__name__} expected")
            if not isinstance(value, bool) and not 0 < value < math.inf:
                raise ValueError(f"options.{name}: {value!r} found, must be finite and greater than 0")
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


class Measure(_Strict):
    """Where a measurement (see `measurements.py`) is taken during training."""

    rows: list[str] = Field(min_length=1)
    columns: list[str] = Field(min_length=1)
    """Of which the plan has at most one: what reports show."""


class Sensitivity(_Strict):
    """How the configurations behind Figure 3 are trained."""

    epochs: int | None = Field(default=None, gt=0)
    """Other than the protocol's."""
    note: str | None = None


class PlanConfig(_Strict):
    """A table to train: rows x columns under one protocol."""

    title: str
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

    def hyperparameters(self, row: str, column: str) -> Hyperparameters | None:
        """What the row uses on the column; None where the plan has no such cell."""
        given = self.rows[row].hyperparameters
        return given.get(column) or given.get(self.columns[column].hyperparameters_from or column)

    def dims(self, row: str, column: str, dataset: DatasetConfig) -> list[int]:
        """Layer widths of the row's network on the column: input, hidden..., classes."""
        network = self.networks[self.columns[column].network]
        width = network.width
        if self.rows[row].size == "half":
            width = half_width(dataset.inputs, network.hidden_layers, width, dataset.classes)
        return [dataset.inputs, *[width] * network.hidden_layers, dataset.classes]


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SearchSpace(_Strict):
    """What is searched for one row: a grid, or ranges that a sampler draws from."""

    grid: dict[str, Annotated[list[Positive], Field(min_length=1)]] | None = None
    ranges: dict[str, Annotated[list[Positive], Field(min_length=2, max_length=2)]] | None = None
    """Lowest and highest value; drawn log-uniform."""
    trials: int = Field(default=16, gt=0)
    """Configurations drawn from `ranges`."""
    wave: int = Field(default=8, gt=0)
    """Of which so many are trained side by side; the sampler learns from each wave."""
    rungs: list[Annotated[int, Field(gt=0)]] = Field(min_length=1)
    """Epochs after which a wave is thinned out; the last ones decide."""
    reduction: int = Field(default=3, ge=2)
    """One in so many goes on to the next rung."""

    @model_validator(mode="after")
    def _consistent(self) -> SearchSpace:
        if (self.grid is None) == (self.ranges is None):
            raise ValueError("either 'grid' or 'ranges' is required")
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs: {self.rungs} found, must rise")
        for name, (low, high) in (self.ranges or {}).items():
            if low >= high:
                raise ValueError(f"ranges.{name}: [{low}, {high}] found, the lowest comes first")
        return self

    @property
    def names(self) -> list[str]:
        return list(self.grid or self.ranges or {})


class SearchConfig(_Strict):
    """`search.yaml`: how hyperparameters are searched for."""

    validation_samples: int = Field(gt=0)
    """The last ones of the training set, as in the caption of Table 2."""
    seed: int = Field(ge=0)
    rows: dict[str, SearchSpace] = Field(min_length=1)


class PaperCell(_Strict):
    """A number of the paper: mean and the +- printed behind it."""

    mean: float
    std: float


class PaperTable(_Strict):
    """One table of the paper."""

    n: int
    spread: str
    unit: str
    cells: dict[str, dict[str, PaperCell]]


class _Pairs(_Strict):
    """Each of `rows` against each of the other rows, on each data set."""

    rows: Names
    against: Names
    columns: Names


class LowerError(_Pairs):
    """The test error is lower, or higher by less than the margin."""

    kind: Literal["lower_error"]


class CloseError(_Pairs):
    """The test errors differ by less than `within` points plus margin."""

    kind: Literal["close_error"]
    within: float = Field(ge=0, allow_inf_nan=False)


class LessSensitive(_Pairs):
    """Random hyperparameters cost less accuracy, or more by less than the margin (points)."""

    kind: Literal["less_sensitive"]


class _Bounded(_Strict):
    """Asks for a number above or below a bound, or about a value; the margin widens either."""

    above: float | None = None
    below: float | None = None
    about: float | None = None

    @model_validator(mode="after")
    def _one(self) -> _Bounded:
        if sum(bound is not None for bound in (self.above, self.below, self.about)) != 1:
            raise ValueError("one of 'above', 'below', 'about' is required")
        return self

    def interval(self, margin: float) -> tuple[float, float]:
        """The open interval in which the number must lie."""
        if self.about is not None:
            return self.about - margin, self.about + margin
        low = -math.inf if self.above is None else self.above - margin
        return low, math.inf if self.below is None else self.below + margin


class Measured(_Bounded):
    """What was measured lies within bounds, for every seed."""

    kind: Literal["measured"]
    of: Literal["test_error", "trace", "nonnegative", "nonnegative_symmetric"]
    """The test error of the last epoch, or what `jacobian.spectrum` measures."""
    rows: Names
    columns: Names
    encoders: list[Annotated[int, Field(gt=1)] | Literal["last"]] = []
    """l, of the Jacobians."""
    from_epoch: int | None = Field(default=None, gt=0)
    """Every epoch from this one on; None: only the last one."""
    trend: bool = False
    """Bounds are for the rank correlation (Spearman) with the epoch: 1 for a number that always rises."""

    @model_validator(mode="after")
    def _consistent(self) -> Measured:
        if (self.of == "test_error") == bool(self.encoders):
            raise ValueError("'encoders' are required for a measurement of Jacobians, and for nothing else")
        if self.of == "test_error" and self.from_epoch is not None:
            raise ValueError("'from_epoch' is for measurements of Jacobians")
        if self.trend and self.from_epoch is None:
            raise ValueError("'trend' requires 'from_epoch'")
        return self


class TimeRatio(_Pairs, _Bounded):
    """The seconds an epoch takes, divided by the other row's, lie within bounds."""

    kind: Literal["time_ratio"]
    above: float | None = Field(None, gt=0)
    below: float | None = Field(None, gt=0)
    about: float | None = Field(None, gt=0)


Check = LowerError | CloseError | Measured | TimeRatio | LessSensitive


class Claim(_Strict):
    """A sentence of the paper, and how it is checked on stored results."""

    section: str
    quote: str
    """Verbatim."""
    check: Check = Field(discriminator="kind")
    need: Literal["all", "any"] = "all"
    """How many of the check's parts must hold."""
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["plan"]
    """How far the check gives way; plan: by the data set's margin in the plan."""
    reason: str
    """Why this check and this margin."""

    @model_validator(mode="after")
    def _margin(self) -> Claim:
        if self.margin == "plan" and not isinstance(self.check, LowerError | CloseError):
            raise ValueError("margin: 'plan' is for test errors, a number expected")
        return self


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is an error."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # an alias inside its own anchor is an error, not a cycle

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what `read_yaml` would take for a number."""


# YAML 1.1 reads 1e-3 as text; everybody else as a number. The two must agree: a run's key may look like one.
for _style in (_UniqueKeys, _Dumper):
    _style.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def dump_yaml(content: Any) -> str:
    """`content` as YAML that `read_yaml` reads back as it was."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(file: Path) -> Any:
    """The content of a YAML file; `UserError` names file and line."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    try:
        return yaml.load(text, _UniqueKeys)
    except Exception as error:  # PyYAML lets through what its constructors raise
        message = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise UserError(f"{file}: not valid YAML: {message}") from None


def _read_mapping(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if content is None:
        raise UserError(f"{file}: the file is empty")
    if not isinstance(content, dict):
        raise UserError(f"{file}: a mapping expected, {type(content).__name__} found")
    return content


def _keys(kind: Any, path: Sequence[str | int]) -> str:
    """What a model, or one below it at the end of `path`, may hold; empty where that is not fixed."""
    for step in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(step)].annotation
        elif get_origin(kind) in (dict, list):
            kind = get_args(kind)[-1]
        else:
            return ""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return ""
    return ", ".join([*(["base"] if kind is PlanConfig else []), *kind.model_fields])


def _one_line(kind: type[BaseModel], file: Path, error: ValidationError, *above: str) -> UserError:
    """The first problem: file, key path (below `above`), what was found and what is allowed."""
    problems = error.errors()
    first = problems[0]
    where = ".".join(str(p) for p in (*above, *first["loc"]) if p != "__pydantic_extra__")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        allowed = _keys(kind, first["loc"][:-1])
        message = f"unknown key{', allowed: ' if allowed else ''}{allowed}"
    elif first["type"] not in ("value_error", "missing"):
        message = f"{first['input']!r} found; {message[0].lower()}{message[1:]}"
    elif first["type"] == "missing":
        message = "this key is required"
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    line = f"{where + ': ' if where else ''}{message}{more}"
    return UserError(f"{file}: {' '.join(line.split())}")


def merge(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `delta` on top: mappings merge key by key, null removes, anything else replaces."""
    merged = dict(base)
    for key, value in delta.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def plan_file(plan: str) -> Path:
    """The file of a plan given by name (`table2`) or by path."""
    if plan.endswith((".yaml", ".yml")):
        return Path(plan)
    file = CONFIGS / f"{plan}.yaml"
    if not file.is_file():
        plans = (path for path in CONFIGS.glob("*.yaml") if {"base", "columns"} & set(_read_mapping(path)))
        known = sorted(path.stem for path in plans)
        raise UserError(f"unknown plan {plan!r}, allowed: {', '.join(known)}, or a path ending in .yaml")
    return file


def _resolved(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's mapping with its `base` files merged in below it."""
    content = _read_mapping(file)
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise UserError(f"{file}: base: {base!r} found; the name of a YAML file beside it expected")
    parent = file.parent / base
    if parent.resolve() in (*above, file.resolve()):
        raise UserError(f"{file}: base: {base} leads back to this file")
    if not parent.is_file():
        raise UserError(f"{file}: base: {parent} does not exist; a path from this file's folder expected")
    return merge(_resolved(parent, (*above, file.resolve())), content)


def _as_table2(plan: PlanConfig) -> bool:
    """Whether the plan trains what it has in common with the shipped Table 2, and judges it, as that does.

    Hyperparameters do not count: the paper says nothing of them.
    """

    def experiments(config: PlanConfig) -> dict[tuple[str, str], Any]:
        found: dict[tuple[str, str], Any] = {
            ("protocol", ""): config.protocol.model_dump(exclude={"source", "note"})
        }
        for name, row in config.rows.items():
            found["rows", name] = (row.method, row.size, row.all_options)
        for name, column in config.columns.items():
            network = config.networks[column.network].model_dump(exclude={"source"})
            found["columns", name] = (network, config.margins.get(name))
        return found

    table2 = experiments(PlanConfig.model_validate(_read_mapping(CONFIGS / "table2.yaml")))
    ours = experiments(plan)
    return all(ours[place] == table2[place] for place in ours.keys() & table2.keys())


def load_plan(plan: str, datasets: Mapping[str, DatasetConfig]) -> PlanConfig:
    """A plan by name or path, its columns checked against the known data sets."""
    file = plan_file(plan)
    content = _resolved(file)
    try:
        config = PlanConfig.model_validate(content)
    except ValidationError as error:
        raise _one_line(PlanConfig, file, error) from None
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
    printed = load_paper_values()["table2"].cells
    for name, row in config.rows.items():
        if row.paper_row not in (None, *printed):
            raise UserError(
                f"{file}: rows.{name}.paper_row: {row.paper_row!r} found, allowed: {', '.join(printed)}"
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


def load_datasets(file: Path = CONFIGS / "datasets.yaml") -> dict[str, DatasetConfig]:
    """The known data sets by name."""
    return {
        str(name): _validated(DatasetConfig, entry, file, str(name))
        for name, entry in _read_mapping(file).items()
    }


def load_paper_values(file: Path = CONFIGS / "paper_values.yaml") -> dict[str, PaperTable]:
    """The paper's own numbers, table by table: only ever the comparison."""
    return {
        str(name): _validated(PaperTable, entry, file, str(name))
        for name, entry in _read_mapping(file).items()
    }


def load_claims(
    rows: Collection[str], columns: Collection[str], file: Path = CONFIGS / "claims.yaml"
) -> dict[str, Claim]:
    """The paper's claims by name; `UserError` for a row or data set that is none of the given ones."""
    claims = {
        str(name): _validated(Claim, entry, file, str(name)) for name, entry in _read_mapping(file).items()
    }
    allowed = {"rows": rows, "against": rows, "columns": columns}
    for name, claim in claims.items():
        for key, given in claim.check:
            for unknown in sorted(set(given) - set(allowed[key])) if key in allowed else []:
                listed = ", ".join(allowed[key])
                raise UserError(f"{file}: {name}.check.{key}: unknown {unknown!r}, allowed: {listed}")
    return claims


def _validated(kind: type[Model], entry: Any, file: Path, key: str) -> Model:
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        raise _one_line(kind, file, error, key) from None


def load_search(file: Path = CONFIGS / "search.yaml") -> SearchConfig:
    """The search spaces by row label."""
    try:
        return SearchConfig.model_validate(_read_mapping(file))
    except ValidationError as error:
        raise _one_line(SearchConfig, file, error) from None
