"""Load plans by name, and merge a plan over its `base:`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from benchmark.common.errors import UserError
from benchmark.config.datasets import DatasetConfig
from benchmark.config.files import (
    CONFIGS,
    merge,
    read_mapping,
    removes_nothing,
    validated,
)
from benchmark.config.paper import load_paper_values
from benchmark.config.plan import PlanConfig, Source


def plan_file(plan: str) -> Path:
    """Find the file of a plan, given its name (`table2`) or its path."""
    if plan.endswith((".yaml", ".yml")):
        return Path(plan)
    file = CONFIGS / f"{plan}.yaml"
    if not file.is_file():
        raise UserError(f"unknown plan {plan!r}, allowed: {known_plans()}")
    return file


def known_plans() -> str:
    """The names of the plans that exist, for an error message."""
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml") if _holds_plan(path))
    return f"{', '.join(known)}, or a path ending in .yaml"


def _holds_plan(file: Path) -> bool:
    try:
        return bool({"base", "columns"} & set(read_mapping(file)))
    except UserError:  # the file is reported when it is named
        return False


def _resolved(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a plan and merge it over its `base` files."""
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
    _without_old_notes(file, below, content)
    rows = content.get("rows")
    dropped = [name for name, row in rows.items() if row is None] if isinstance(rows, dict) else []
    if "measure" in below:
        below["measure"] = _measure_without(dropped, below["measure"])
    return merge(below, content)


def _without_old_notes(file: Path, below: dict[str, Any], content: dict[str, Any]) -> None:
    """Remove the notes of the base on hyperparameters that the plan changes.

    `UserError` if the plan does not say where its own values come from.
    """
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
    """Each entry of hyperparameters with its row and data set. Malformed entries are left to the schema."""
    for row, entry in _items(content.get("rows")):
        for column, given in _items(entry.get("hyperparameters") if isinstance(entry, dict) else None):
            if isinstance(given, dict):
                yield f"rows.{row}.hyperparameters.{column}", given


def _items(found: Any) -> Iterable[tuple[str, Any]]:
    return found.items() if isinstance(found, dict) else ()


def _measure_without(rows: list[str], measure: Any) -> Any:
    """The measurements of a base without these rows. Malformed entries are left to the schema."""
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
    """Whether the cells shared with the shipped Table 2 are trained and compared in the same way.

    Hyperparameters may differ, because the paper does not give them.
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
    """Load a plan by name or path, and check its data sets against the known ones."""
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
    printed = load_paper_values()["table2"].cells
    for name, row in config.rows.items():
        if row.paper_row not in (None, *printed):
            raise UserError(
                f"{file}: rows.{name}.paper_row: {row.paper_row!r} found, allowed: {', '.join(printed)}"
            )
        # Its cells would be corrected together with the paper's, and weaken their tests.
        if config.comparable and name not in printed and not row.addition:
            raise UserError(
                f"{file}: rows.{name}: the paper's Table 2 has no such row; it needs `addition: true` (also "
                f"beside a `paper_row`), or one of the paper's labels: {', '.join(printed)}"
            )
    # Known data sets are allowed, not only those of this plan: it may have dropped some of its base.
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
