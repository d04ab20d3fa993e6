"""Plans: what the shipped files say, and every bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmark.common.errors import UserError
from benchmark.config import (
    CONFIGS,
    DatasetConfig,
    PlanConfig,
    load_datasets,
    load_paper_values,
    load_plan,
    merge,
    plan_files,
    read_yaml,
)
from benchmark.config.plan import Row
from benchmark.methods import METHODS
from benchmark.methods.bp import BP
from benchmark.sweep.plan import Plan

ROWS = [
    *("BP", "BP (as released)", "FA", "FA (as released)", "TP", "DTP (half size)", "DTP"),
    *(
        "DRL (half size)",
        "DRL (as defined, half size)",
        "DRL",
        "L-DRL (half size)",
        "L-DRL",
        "FW-DTP",
        "Shallow",
    ),
]
Write = Callable[..., Path]
LineOf = Callable[[pytest.ExceptionInfo[UserError]], str]


@pytest.fixture(scope="module")
def table2(datasets: dict[str, DatasetConfig]) -> PlanConfig:
    return load_plan("table2", datasets)


@pytest.fixture(scope="module")
def quick(datasets: dict[str, DatasetConfig]) -> PlanConfig:
    return load_plan("quick", datasets)


# ---- the shipped files


def test_table2(table2: PlanConfig) -> None:
    assert list(table2.rows) == ROWS
    assert table2.comparable
    assert (table2.protocol.epochs, table2.protocol.batch_size) == (100, 256)
    assert table2.protocol.seeds == [1, 2, 3, 4, 5]
    assert {name for name, row in table2.rows.items() if row.addition} == {
        "BP (as released)",
        "FA (as released)",
        "DRL (as defined, half size)",
        "Shallow",
    }
    assert not any(column.addition for column in table2.columns.values())
    for name, row in table2.rows.items():
        assert row.method == name.split(" (")[0]
        assert row.size == ("half" if "half size" in name else "full")
        if "as_released" in row.all_options:
            by_default = row.method == "DRL"
            named = f"(as {'defined' if by_default else 'released'}" in name
            assert row.all_options["as_released"] == (by_default ^ named)
    assert {row.method for row in table2.rows.values()} == set(METHODS)


def test_margins_are_declared_for_every_column_of_the_paper(table2: PlanConfig) -> None:
    paper = {"mnist": 0.3, "fashion-mnist": 0.6, "cifar-10": 1.5, "cifar-100": 1.5}
    assert table2.margins == paper
    assert set(paper) == {name for name, c in table2.columns.items() if not c.addition}


def test_every_column_of_the_paper_is_not_an_addition(table2: PlanConfig) -> None:
    paper = load_paper_values()["table2"].cells
    assert {name for name, row in table2.rows.items() if not row.addition} == set(paper)
    shown = {name for name, column in table2.columns.items() if not column.addition}
    assert shown == set(paper["BP"])


@pytest.mark.parametrize("plan", ["table2", "quick"])
def test_every_hyperparameter_block_says_where_it_comes_from(
    plan: str, datasets: dict[str, DatasetConfig]
) -> None:
    config = load_plan(plan, datasets)
    sources = {"paper", "released code", "search", "guess"}
    assert config.protocol.source in sources
    assert {network.source for network in config.networks.values()} <= sources
    blocks = [block for row in config.rows.values() for block in row.hyperparameters.values()]
    assert len(blocks) > 20
    for block in blocks:
        assert block.source in sources
        assert all(math.isfinite(value) and value > 0 for value in block.values.values())


def test_cells_of_table2_are_those_of_the_paper(table2: PlanConfig) -> None:
    paper = load_paper_values()["table2"].cells
    for name, row in table2.rows.items():
        if not row.addition:
            trained = {c for c in table2.columns if table2.hyperparameters(name, c)}
            assert trained == set(paper[name]), name


def test_quick(quick: PlanConfig, table2: PlanConfig) -> None:
    assert list(quick.rows) == ROWS
    assert not quick.comparable
    assert list(quick.columns) == ["fashion-mnist-mini"]
    assert quick.directory != table2.directory
    for row in ROWS:
        assert quick.hyperparameters(row, "fashion-mnist-mini") is not None
    for row in set(ROWS) - {"TP"}:
        assert quick.rows[row] == table2.rows[row]


def test_hyperparameters_come_from_the_named_column(table2: PlanConfig) -> None:
    assert table2.hyperparameters("BP", "cifar-100") == table2.hyperparameters("BP", "cifar-10")
    assert table2.hyperparameters("TP", "cifar-100") is None
    assert table2.hyperparameters("TP", "mnist") is not None


def test_dims(table2: PlanConfig, datasets: dict[str, DatasetConfig]) -> None:
    mnist, cifar = datasets["mnist"], datasets["cifar-100"]
    assert table2.dims("DTP", "mnist", mnist) == [784, *[256] * 5, 10]
    assert table2.dims("BP", "cifar-100", cifar) == [3072, *[1024] * 3, 100]
    assert table2.dims("DTP (half size)", "mnist", mnist) == [784, *[164] * 5, 10]
    assert table2.dims("DTP (half size)", "cifar-10", datasets["cifar-10"]) == [3072, *[632] * 3, 10]
    assert table2.dims("DTP (half size)", "cifar-100", cifar) == [3072, *[631] * 3, 100]


def test_the_deeper_plan_keeps_its_networks_and_values(
    table2: PlanConfig, datasets: dict[str, DatasetConfig]
) -> None:
    deeper, mnist = load_plan("table2-deeper", datasets), datasets["mnist"]
    assert list(deeper.columns) == ["mnist", "fashion-mnist"]
    assert deeper.dims("DTP", "mnist", mnist) == [784, *[256] * 6, 10]
    assert deeper.dims("DTP (half size)", "mnist", mnist) == [784, *[164] * 6, 10]
    assert list(deeper.rows) == list(table2.rows)


def test_options_of_one_data_set(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    values = {"lr": 1, "stepsize": 0.1, "lr_feedback": 0.01, "noise_std": 0.01, "source": "guess"}
    on_mnist = {**values, "options": {"decoder_init": "orthogonal"}}
    row = {"method": "DTP", "addition": True, "hyperparameters": {"mnist": on_mnist, "fashion-mnist": values}}
    delta = {"base": str(CONFIGS / "table2.yaml"), "rows": {"Mine": row}}
    config = load_plan(str(write(delta)), datasets)
    plan = Plan(config, datasets, "mine.yaml")
    on = {column: plan.run("Mine", column).options["decoder_init"] for column in ("mnist", "fashion-mnist")}
    assert on == {"mnist": "orthogonal", "fashion-mnist": 0.01}


# ---- plans of one's own

PLAN: dict[str, Any] = {
    "title": "mine",
    "protocol": {"epochs": 1, "batch_size": 2, "seeds": [1], "source": "guess"},
    "networks": {"n": {"hidden_layers": 2, "width": 8, "source": "guess"}},
    "columns": {"mnist": {"network": "n"}},
    "rows": {
        "BP": {"method": "BP", "hyperparameters": {"mnist": {"lr": 0.1, "source": "guess"}}},
        "DTP": {
            "method": "DTP",
            "hyperparameters": {
                "mnist": {
                    "lr": 1,
                    "stepsize": 0.1,
                    "lr_feedback": 0.1,
                    "noise_std": 0.1,
                    "source": "guess",
                }
            },
        },
    },
}


def test_a_plan_by_path(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    plan = load_plan(str(write(PLAN)), datasets)
    assert plan.rows["DTP"].hyperparameters["mnist"].values["lr"] == 1.0
    assert plan.rows["DTP"].all_options["feedback_updates"] == 5
    assert plan.rows["BP"].size == "full"


def test_bases_merge_from_the_bottom_up(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    write({**PLAN, "directory": "bottom"}, "a.yaml")
    write({"base": "a.yaml", "title": "b", "protocol": {"epochs": 7}}, "b.yaml")
    top = {"base": "b.yaml", "protocol": {"seeds": [4, 0]}, "rows": {"DTP": None}}
    plan = load_plan(str(write(top, "c.yaml")), datasets)
    assert (plan.title, plan.directory, list(plan.rows)) == ("b", "bottom", ["BP"])
    assert (plan.protocol.epochs, plan.protocol.seeds) == (7, [4, 0])


@pytest.mark.parametrize("mark", [{"addition": True}, {}])
def test_a_row_that_the_paper_has_not_is_an_addition(
    write: Write, datasets: dict[str, DatasetConfig], mark: dict[str, Any]
) -> None:
    """Else it would be corrected together with the paper's rows."""
    row = {"method": "BP", "hyperparameters": {"mnist": {"lr": 0.2, "source": "guess"}}, **mark}
    over = {"base": str(CONFIGS / "table2.yaml"), "rows": {"Mine": row}}
    file = write({**over, "title": "Mine"}, "mine.yaml")
    assert not load_plan(str(write({**over, "comparable": False}, "apart.yaml")), datasets).comparable
    if mark:
        assert load_plan(str(file), datasets).comparable
        return
    with pytest.raises(UserError, match=r"rows\.Mine: the paper's Table 2 has no such row"):
        load_plan(str(file), datasets)


@pytest.mark.parametrize(
    ("delta", "comparable"),
    [
        ({}, True),
        ({"margins": {"mnist": 0.2}}, False),
        (
            {
                "margins": {"fashion-mnist-mini": 1.5},
                "columns": {"fashion-mnist": None},
                "rows": {"FA": None},
            },
            True,
        ),
        ({"protocol": {"note": "said otherwise"}}, True),
        ({"rows": {"BP": {"hyperparameters": {"mnist": {"lr": 0.2, "source": "guess"}}}}}, True),
        ({"protocol": {"epochs": 20}}, False),
        ({"protocol": {"seeds": [1]}}, False),
        ({"networks": {"5x256": {"width": 128}}}, False),
        ({"columns": {"mnist": {"network": "3x1024"}}}, False),
        ({"rows": {"DTP": {"options": {"feedback_updates": 2}}}}, False),
        ({"rows": {"DTP": {"size": "half"}}}, False),
        ({"rows": {"BP": {"paper_row": "FA"}}}, False),
        ({"rows": {"BP": {"paper_row": "BP"}}}, True),
        ({"protocol": {"epochs": 20}, "comparable": True}, True),
        ({"comparable": False}, False),
        ({"base": None}, True),
        (
            {"base": None, "protocol": {"epochs": 5, "batch_size": 256, "seeds": [1], "source": "guess"}},
            False,
        ),
    ],
)
def test_a_plan_that_trains_otherwise_is_not_comparable(
    write: Write, datasets: dict[str, DatasetConfig], delta: dict[str, Any], comparable: bool
) -> None:
    whole = {} if "base" not in delta else read_yaml(CONFIGS / "table2.yaml")
    file = write({"base": str(CONFIGS / "table2.yaml"), **whole, "title": "Mine", **delta}, "mine.yaml")
    assert load_plan(str(file), datasets).comparable is comparable
    above = write({"base": "mine.yaml", "title": "Above"}, "above.yaml")
    assert load_plan(str(above), datasets).comparable is comparable


def test_a_data_set_taken_away_and_put_back_otherwise(
    write: Write, datasets: dict[str, DatasetConfig]
) -> None:
    write({"base": str(CONFIGS / "table2.yaml"), "columns": {"cifar-10": None}}, "less.yaml")
    file = write(
        {"base": "less.yaml", "columns": {"cifar-10": {"network": "5x256", "half_width": 164}}}, "more.yaml"
    )
    assert not load_plan(str(file), datasets).comparable


def test_one_measured_data_set_that_the_plan_has(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    base = {"base": str(CONFIGS / "table2.yaml"), "title": "Mine"}
    assert load_plan(str(write({**base, "columns": {"mnist": None}})), datasets).measure == {}
    dropped = {"rows": {"DRL": {"hyperparameters": {"mnist": None}}}}
    measured = load_plan(str(write({**base, **dropped})), datasets).measure["conditions"]
    assert (measured.rows, measured.columns) == (["DTP", "L-DRL", "FW-DTP"], ["mnist"])
    for name, values in (("columns", ["mnist", "mnist"]), ("rows", ["DTP", "FW-DTP", "DTP"])):
        twice = write({**base, "measure": {"jacobian": {name: values}}})
        with pytest.raises(UserError, match=rf"measure\.jacobian\.{name}: '{values[0]}' stands twice"):
            load_plan(str(twice), datasets)
    two = write({**base, "measure": {"jacobian": {"columns": ["mnist", "fashion-mnist"]}}})
    with pytest.raises(UserError, match=r"measure\.jacobian\.columns: mnist, fashion-mnist found, one"):
        load_plan(str(two), datasets)


def test_rows_that_the_base_measures_can_be_dropped(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    base = {"base": str(CONFIGS / "table2.yaml"), "title": "Mine"}
    measure = load_plan(str(write({**base, "rows": {"DTP": None, "DRL": None}})), datasets).measure
    assert measure["jacobian"].rows == ["FW-DTP"]
    assert measure["conditions"].rows == ["L-DRL", "FW-DTP"]
    none = {"rows": {"DTP": None, "FW-DTP": None}}
    assert set(load_plan(str(write({**base, **none})), datasets).measure) == {"conditions"}
    write({**base, "measure": {"jacobian": {"rows": []}}}, "malformed.yaml")
    above = write({"base": "malformed.yaml", "rows": {"BP": None}}, "above.yaml")
    with pytest.raises(UserError, match=r"measure\.jacobian\.rows: \[\] found"):
        load_plan(str(above), datasets)
    named = write({**base, "rows": {"DTP": None}, "measure": {"jacobian": {"rows": ["DTP"]}}})
    with pytest.raises(UserError, match=r"measure\.jacobian\.rows: unknown 'DTP'"):
        load_plan(str(named), datasets)


@pytest.mark.parametrize(
    ("delta", "path", "there"),
    [
        ({"rows": {"L-DLR": None}}, "rows.L-DLR", "L-DRL (half size), L-DRL, FW-DTP"),
        ({"columns": {"mnits": None}}, "columns.mnits", "mnist, fashion-mnist"),
        ({"measure": {"jacobain": None}}, "measure.jacobain", "jacobian, conditions"),
        ({"rows": {"New": {"note": None}}}, "rows.New.note", "none in"),
        ({"directory": None}, "directory", "title, protocol"),
    ],
)
def test_a_null_that_removes_nothing(
    write: Write,
    datasets: dict[str, DatasetConfig],
    line_of: LineOf,
    delta: dict[str, Any],
    path: str,
    there: str,
) -> None:
    with pytest.raises(UserError) as error:
        load_plan(str(write({"base": str(CONFIGS / "table2.yaml"), **delta})), datasets)
    assert f"plan.yaml: {path}: null removes what the base has, and there is none" in line_of(error)
    assert there in str(error.value)


def test_a_mistyped_key_above_a_null_is_named(
    write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf
) -> None:
    with pytest.raises(UserError) as error:
        load_plan(str(write({"base": str(CONFIGS / "table2.yaml"), "row": {"BP": None}})), datasets)
    assert "plan.yaml: row: unknown key, allowed: base, title, " in line_of(error)


@pytest.mark.parametrize("text", ["a: [", "rows: 5", "title: T\ncolour: 1"])
def test_a_damaged_table2_is_named(
    write: Write,
    datasets: dict[str, DatasetConfig],
    line_of: LineOf,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    """Every plan is held against it."""
    file = write(PLAN, "mine.yaml")
    damaged = write(text, "table2.yaml")
    monkeypatch.setattr("benchmark.config.plan_files.CONFIGS", damaged.parent)
    with pytest.raises(UserError, match=r"table2\.yaml: ") as error:
        load_plan(str(file), datasets)
    line_of(error)


def test_values_of_its_own_have_a_source_and_no_note_of_the_base(
    write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf
) -> None:
    def over(**given: Any) -> str:
        delta = {"rows": {"FA": {"hyperparameters": {"mnist": given}}}}
        return str(write({"base": str(CONFIGS / "table2.yaml"), "title": "Mine", **delta}))

    base = load_plan("table2", datasets).rows["FA"].hyperparameters["mnist"]
    assert base.note
    with pytest.raises(
        UserError, match=r"plan\.yaml: rows\.FA\.hyperparameters\.mnist: lr is not the base's"
    ) as error:
        load_plan(over(lr=0.05), datasets)
    assert "its `source` must be said, too: paper, released code, search, guess" in line_of(error)
    own = load_plan(over(lr=0.05, source="guess"), datasets).rows["FA"].hyperparameters["mnist"]
    assert (own.values, own.source, own.note) == ({"lr": 0.05}, "guess", None)
    same = load_plan(over(lr=base.values["lr"]), datasets).rows["FA"].hyperparameters["mnist"]
    assert same == base
    with pytest.raises(UserError, match="lrr is not a hyperparameter; FA takes lr"):
        load_plan(over(lrr=3), datasets)


def test_values_are_taken_from_column_to_column(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    row = {"method": "BP", "hyperparameters": {"fashion-mnist": {"lr": 0.5, "source": "guess"}}}

    def taken(takes: dict[str, str], column: str) -> dict[str, float] | None:
        columns = {
            name: {"network": "4x128", "half_width": 74, "hyperparameters_from": other}
            for name, other in takes.items()
        }
        delta = {"base": str(CONFIGS / "quick.yaml"), "columns": columns, "rows": {"Mine": row}}
        found = load_plan(str(write(delta)), datasets).hyperparameters("Mine", column)
        return None if found is None else found.values

    assert taken({}, "fashion-mnist-mini") == {"lr": 0.5}
    assert taken({"cifar-10": "fashion-mnist-mini"}, "cifar-10") == {"lr": 0.5}
    assert taken({"cifar-10": "cifar-100", "cifar-100": "cifar-10"}, "cifar-10") is None


def test_columns_that_share_an_entry_keep_their_own_notes(
    write: Write, datasets: dict[str, DatasetConfig]
) -> None:
    text = (
        f"base: {CONFIGS / 'table2.yaml'}\ntitle: Base\nrows:\n  FA:\n    hyperparameters:\n"
        "      mnist: &a {lr: 1, source: search, note: searched}\n      fashion-mnist: *a\n"
    )
    write(text, "aliased.yaml")
    one = {"FA": {"hyperparameters": {"mnist": {"lr": 2, "source": "guess"}}}}
    found = load_plan(str(write({"base": "aliased.yaml", "rows": one})), datasets).rows["FA"].hyperparameters
    assert (found["mnist"].note, found["fashion-mnist"].note) == (None, "searched")


def test_a_base_in_another_folder(write: Write, datasets: dict[str, DatasetConfig]) -> None:
    file = write({"base": str(CONFIGS / "table2.yaml"), "title": "elsewhere"})
    assert list(load_plan(str(file), datasets).rows) == ROWS


def test_merge_keys_of_yaml(write: Write) -> None:
    file = write("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert read_yaml(file)["b"] == {"x": 1, "y": 3}


def test_comments_anchors_and_unicode(write: Write) -> None:
    assert read_yaml(write("# é\na: &a {é: 1}\nb: *a\n")) == {"a": {"é": 1}, "b": {"é": 1}}


# ---- bad input: one line with file, key path, what was found and what is allowed


def changed(path: str, value: Any) -> dict[str, Any]:
    """`PLAN` with one value set; the keys of `path` are separated by slashes."""
    *above, last = path.split("/")
    delta: dict[str, Any] = {last: value}
    for key in reversed(above):
        delta = {key: delta}
    return merge(PLAN, delta)


LR = "rows/BP/hyperparameters/mnist/lr"
SEEDS = "protocol/seeds"
STEPSIZE = "rows/DTP/hyperparameters/mnist/stepsize"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("epoch", 3, ["epoch", "unknown key, allowed: base, title, comparable"]),
        ("protocol/epoch", 3, ["protocol.epoch", "unknown key, allowed: epochs, batch_size"]),
        ("rows/BP/colour", 3, ["rows.BP.colour", "unknown key, allowed: method, size"]),
        ("columns/mnist/colour", 3, ["columns.mnist.colour", "unknown key, allowed: network, "]),
        ("networks/n/depth", 3, ["networks.n.depth", "unknown key"]),
        ("a\nb", 3, ["a b", "unknown key"]),
        (
            "protocol",
            {"source": None, "sourse": "paper"},
            ["protocol.sourse: unknown key", "epochs, batch_size", "; protocol.source: this key is required"],
        ),
        (SEEDS, None, ["protocol.seeds", "required"]),
        ("rows", None, ["rows", "required"]),
        ("protocol/source", None, ["protocol.source", "required"]),
        ("protocol/source", "rumour", ["protocol.source", "'rumour'", "'released code'"]),
        ("protocol/epochs", 1.5, ["protocol.epochs", "1.5 found", "integer"]),
        ("protocol/epochs", 1.0, ["protocol.epochs", "1.0 found", "integer"]),
        ("protocol/epochs", "5", ["protocol.epochs", "'5' found", "integer"]),
        ("protocol/epochs", True, ["protocol.epochs", "True found", "integer"]),
        ("protocol/epochs", 0, ["protocol.epochs", "0 found", "greater than 0"]),
        ("protocol/epochs", -3, ["protocol.epochs", "-3 found", "greater than 0"]),
        ("protocol/epochs", [5], ["protocol.epochs", "[5] found", "integer"]),
        (
            "protocol/epochs",
            10**11,
            ["protocol.epochs", "100000000000 found", "less than or equal to 1000000"],
        ),
        ("protocol/batch_size", 0, ["protocol.batch_size", "0 found", "greater than 0"]),
        ("protocol/batch_size", 10**6 + 1, ["protocol.batch_size", "1000001 found", "less than"]),
        ("networks/n/width", 10**6 + 1, ["networks.n.width", "1000001 found", "less than"]),
        ("networks/n/hidden_layers", 1001, ["networks.n.hidden_layers", "1001 found", "less than"]),
        ("protocol/seeds", [2**31], ["protocol.seeds.0", "2147483648 found", "less than"]),
        ("sensitivity/epochs", 10**11, ["sensitivity.epochs", "100000000000 found", "less than"]),
        ("networks/n/width", 0, ["networks.n.width", "0 found", "greater than 0"]),
        ("networks/n/hidden_layers", 0, ["networks.n.hidden_layers", "0 found", "greater than"]),
        ("comparable", "yes", ["comparable", "'yes' found", "boolean"]),
        ("comparable", 1, ["comparable", "1 found", "boolean"]),
        ("margins", {"mnist": 0}, ["margins.mnist", "0 found", "greater than 0"]),
        ("margins", {"mnist": math.inf}, ["margins.mnist", "inf found", "finite"]),
        ("margins", {"mnits": 0.3}, ["margins.mnits", "unknown data set", "allowed: mnist,"]),
        ("title", 5, ["title", "5 found", "string"]),
        (SEEDS, [], ["protocol.seeds", "[] found", "at least 1"]),
        (SEEDS, [1, 2, 1], ["protocol.seeds", "1 stands twice"]),
        (SEEDS, [-1], ["protocol.seeds.0", "-1 found", "greater than or equal to 0"]),
        (SEEDS, [1, 2.5], ["protocol.seeds.1", "2.5 found", "integer"]),
        (SEEDS, [True], ["protocol.seeds.0", "True found", "integer"]),
        (SEEDS, 3, ["protocol.seeds", "3 found", "list"]),
        (SEEDS, "1, 2", ["protocol.seeds", "'1, 2' found", "list"]),
        ("protocol", [1], ["protocol", "[1] found", "mapping"]),
        ("rows/BP", 3, ["rows.BP", "3 found", "mapping"]),
        ("rows/BP/method", "PB", ["rows.BP.method", "'PB'", "BP", "FW-DTP"]),
        ("rows/BP/method", "bp", ["rows.BP.method", "'bp'", "BP", "FW-DTP"]),
        ("rows/BP/method", 3, ["rows.BP.method", "3 found", "string"]),
        ("rows/BP/method", None, ["rows.BP.method", "required"]),
        ("rows/BP/size", "quarter", ["rows.BP.size", "'quarter' found", "'full' or 'half'"]),
        ("rows/BP/options", {"fast": True}, ["rows.BP", "options.fast", "as_released"]),
        ("rows/BP/options", {"as_released": 1}, ["options.as_released", "1 found", "bool"]),
        ("rows/BP/options", {"as_released": "y"}, ["options.as_released", "'y' found", "bool"]),
        ("rows/BP/options", [1], ["rows.BP.options", "[1] found", "mapping"]),
        ("rows/DTP/options", {"feedback_updates": 2.0}, ["feedback_updates", "2.0", "int"]),
        ("rows/DTP/options", {"feedback_updates": True}, ["feedback_updates", "True", "int"]),
        ("rows/DTP/options", {"feedback_updates": 0}, ["feedback_updates", "0", "greater than 0"]),
        ("rows/DTP/options", {"decoder_init": "x"}, ["decoder_init", "'x' found", "float"]),
        ("rows/DTP/options", {"decoder_init": -0.1}, ["decoder_init", "-0.1", "greater than 0"]),
        ("rows/DTP/options", {"decoder_init": math.nan}, ["decoder_init", "nan", "greater than"]),
        ("rows/DTP/options", {"decoder_init": math.inf}, ["decoder_init", "inf", "finite"]),
        ("rows/DTP/options", {"as_released": True}, ["as_released", "feedback_updates"]),
        ("rows/BP/hyperparameters", None, ["rows.BP.hyperparameters", "required"]),
        ("rows/BP/hyperparameters/mnist", 0.1, ["hyperparameters.mnist", "0.1 found"]),
        ("rows/BP/hyperparameters/mnist/source", None, ["mnist.source", "required"]),
        ("rows/BP/hyperparameters/mnist/source", "me", ["mnist.source", "'me' found", "'guess'"]),
        ("rows/BP/hyperparameters/mnist/momentum", 0.9, ["mnist.momentum", "BP takes lr"]),
        ("rows/BP/hyperparameters/mnist/values", 0.9, ["mnist.values", "BP takes lr"]),
        ("rows/BP/hyperparameters/mnist/stepsize", 0.9, ["mnist.stepsize", "BP takes lr"]),
        (STEPSIZE, None, ["rows.DTP", "hyperparameters.mnist.stepsize", "missing", "noise_std"]),
        (LR, None, ["rows.BP", "hyperparameters.mnist.lr", "missing", "BP takes lr"]),
        (LR, "fast", [LR.replace("/", "."), "'fast' found", "number"]),
        (LR, "0.1", [LR.replace("/", "."), "'0.1' found", "number"]),
        (LR, True, [LR.replace("/", "."), "True found", "number"]),
        (LR, [0.1], [LR.replace("/", "."), "[0.1] found", "number"]),
        (LR, 0, [LR.replace("/", "."), "0 found", "greater than 0"]),
        (LR, -0.5, [LR.replace("/", "."), "-0.5 found", "greater than 0"]),
        (LR, math.inf, [LR.replace("/", "."), "inf found", "finite"]),
        (LR, -math.inf, [LR.replace("/", "."), "-inf found"]),
        (LR, math.nan, [LR.replace("/", "."), "nan found"]),
        (LR, 10**400, [LR.replace("/", "."), "found"]),
        ("columns/mnist/network", "m", ["columns.mnist.network", "'m'", "allowed: n"]),
        ("columns/mnist", {"network": None}, ["columns.mnist.network", "required"]),
        ("columns", {"mnist": None}, ["columns", "{} found", "at least 1"]),
        ("columns/mnits", {"network": "n"}, ["columns.mnits", "unknown data set", *load_datasets()]),
        (
            "columns/mnist/hyperparameters_from",
            "mnits",
            ["columns.mnist.hyperparameters_from", "'mnits'", "unknown data set", *load_datasets()],
        ),
        (
            "rows/BP/hyperparameters/mnits",
            {"lr": 0.1, "source": "guess"},
            ["rows.BP.hyperparameters.mnits", "unknown data set", *load_datasets()],
        ),
    ],
)
def test_bad_value(
    path: str,
    value: Any,
    expected: list[str],
    write: Write,
    datasets: dict[str, DatasetConfig],
    line_of: LineOf,
) -> None:
    file = write(changed(path, value))
    with pytest.raises(UserError) as error:
        load_plan(str(file), datasets)
    line = line_of(error)
    assert line.startswith(f"{file}: ")
    for part in expected:
        assert part in line


@pytest.mark.parametrize("key", [1, True, 1.5])
def test_keys_that_are_not_text(
    key: Any, write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf
) -> None:
    for content in ({**PLAN, key: 1}, {**PLAN, "rows": {**PLAN["rows"], key: PLAN["rows"]["BP"]}}):
        file = write(content)
        with pytest.raises(UserError, match=r"plan\.yaml: .*string") as error:
            load_plan(str(file), datasets)
        line_of(error)


@pytest.mark.parametrize(
    ("delta", "more"),
    [
        ({"epochs": 0, "batch_size": 0}, r"protocol\.epochs: .*; protocol\.batch_size: [^;]*; [^;]*$"),
        (
            {"epochs": 0, "batch_size": 0, "a": 1},
            r"protocol\.a: unknown key.*; protocol\.epochs: .*; protocol\.batch_size: ",
        ),
        (
            {"epochs": 0, "batch_size": 0, **dict.fromkeys("abcde", 1)},
            r"protocol\.a: .*; protocol\.b: .*; protocol\.c: .*; and 4 more$",
        ),
    ],
    ids=len,
)
def test_more_than_one_problem_is_counted(
    write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf, delta: dict[str, int], more: str
) -> None:
    file = write(merge(PLAN, {"protocol": delta}))
    with pytest.raises(UserError, match=more) as error:
        load_plan(str(file), datasets)
    line_of(error)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["the key 'a' stands twice", "line 3"]),
        ("a: {b: 1, b: 2}\n", ["the key 'b' stands twice"]),
        ("a: [{b: 1, b: 2}]\n", ["the key 'b' stands twice"]),
        ("1: a\n1: b\n", ["the key 1 stands twice"]),
        ("a: [1\n", ["not valid YAML"]),
        ("a: b: c\n", ["not valid YAML", "line 1"]),
        ("\ta: 1\n", ["not valid YAML"]),
        ("a: *nowhere\n", ["not valid YAML", "nowhere"]),
        ("a: !!python/object/apply:os.getcwd []\n", ["not valid YAML"]),
        ("a: 1\n---\nb: 2\n", ["not valid YAML", "single document"]),
        ("? [a]\n: b\n", ["not valid YAML", "unhashable"]),
        ("title: 2023-02-30\n", ["not valid YAML", "day"]),
        ("title: !!bool foo\n", ["not valid YAML"]),
        ("title: !!int foo\n", ["not valid YAML"]),
        ("title: !!timestamp foo\n", ["not valid YAML"]),
        (f"title: {'1' * 5000}\n", ["not valid YAML"]),
        (f"title: {'[' * 100000}\n", ["not valid YAML"]),
        ("&r {rows: *r}\n", ["not valid YAML", "recursive"]),
        ("rows: &r {a: *r}\n", ["not valid YAML", "recursive"]),
        ("rows: &r [*r]\n", ["not valid YAML", "recursive"]),
        ("a: \x00\n", ["not valid YAML"]),
        (b"a: \xff\xfe\n", ["cannot be read"]),
        ("", ["the file is empty"]),
        ("# nothing\n", ["the file is empty"]),
        ("- a\n- b\n", ["a mapping expected", "list found"]),
        ("hello\n", ["a mapping expected", "str found"]),
        ("!!set {title}\n", ["a mapping expected", "set found"]),
        ("base: [table2.yaml]\n", ["base", "['table2.yaml'] found", "YAML file"]),
        ("base: 3\n", ["base", "3 found", "YAML file"]),
        ("base: plan.yaml\n", ["base", "plan.yaml", "leads back"]),
        ("base: ./plan.yaml\n", ["base", "plan.yaml", "leads back"]),
    ],
)
def test_bad_file(
    content: str | bytes,
    expected: list[str],
    write: Write,
    datasets: dict[str, DatasetConfig],
    line_of: LineOf,
) -> None:
    file = write(content)
    with pytest.raises(UserError) as error:
        load_plan(str(file), datasets)
    line = line_of(error)
    assert line.startswith(f"{file}: ")
    for part in expected:
        assert part in line.removeprefix(f"{file}: ")


def test_a_loop_over_several_bases(write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf) -> None:
    for name, base in (("a.yaml", "b.yaml"), ("b.yaml", "c.yaml"), ("c.yaml", "a.yaml")):
        file = write({"base": base}, name)
    with pytest.raises(UserError, match=r"base: \w\.yaml leads back") as error:
        load_plan(str(file), datasets)
    line_of(error)


def test_a_base_that_is_not_there(write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf) -> None:
    with pytest.raises(UserError, match=r"plan\.yaml: base: .*nowhere\.yaml does not exist") as error:
        load_plan(str(write({"base": "nowhere.yaml"})), datasets)
    line_of(error)


def test_a_bad_base_is_the_file_that_is_named(
    write: Write, datasets: dict[str, DatasetConfig], line_of: LineOf
) -> None:
    bad = write("a: [", "bad.yaml")
    with pytest.raises(UserError) as error:
        load_plan(str(write({"base": "bad.yaml"})), datasets)
    assert line_of(error).startswith(f"{bad}: not valid YAML")


def test_an_unreadable_file_does_not_stand_before_an_unknown_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_files, "CONFIGS", tmp_path)
    (tmp_path / "broken.yaml").write_bytes(b"\xff")
    (tmp_path / "other.yaml").write_text("a: 1")
    (tmp_path / "whole.yaml").write_text("base: quick.yaml")
    with pytest.raises(UserError, match=r"unknown plan 'mine', allowed: whole, or a path ending in \.yaml"):
        plan_files.plan_file("mine")


@pytest.mark.parametrize("name", ["tabel2", "", "../table2", "TABLE2", "table2.yaml.bak"])
def test_unknown_plan(name: str, datasets: dict[str, DatasetConfig], line_of: LineOf) -> None:
    with pytest.raises(UserError) as error:
        load_plan(name, datasets)
    line = line_of(error)
    assert f"unknown plan {name!r}" in line
    assert "table2" in line.split("allowed:")[1]
    # quick has its rows from a base of its own, and is a plan for all that
    assert "quick" in line.split("allowed:")[1]
    assert "paper_values" not in line
    assert "datasets" not in line


def test_missing_file(tmp_path: Path, datasets: dict[str, DatasetConfig], line_of: LineOf) -> None:
    file = tmp_path / "nowhere.yaml"
    with pytest.raises(UserError) as error:
        load_plan(str(file), datasets)
    assert line_of(error) == f"{file}: no such file"


def test_a_folder_is_not_a_file(tmp_path: Path, datasets: dict[str, DatasetConfig], line_of: LineOf) -> None:
    folder = tmp_path / "plan.yaml"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be read") as error:
        load_plan(str(folder), datasets)
    line_of(error)


def test_a_shipped_file_that_is_no_plan(datasets: dict[str, DatasetConfig], line_of: LineOf) -> None:
    with pytest.raises(UserError, match=r"datasets\.yaml: ") as error:
        load_plan("datasets", datasets)
    line_of(error)


@pytest.mark.parametrize("directory", ["../evil", "/tmp/evil", "a/../b", "", "a b"])
def test_results_stay_below_the_results_folder(tmp_path: Path, directory: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(f"base: {CONFIGS / 'quick.yaml'}\ndirectory: {directory!r}\n")
    with pytest.raises(UserError, match=r"plan.yaml: directory: "):
        load_plan(str(file), load_datasets())


def test_options_may_be_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(BP):
        mode: Literal["plain", "signed"] = "plain"

    monkeypatch.setitem(METHODS, "BP", Moody)
    given = {"method": "BP", "hyperparameters": {}}
    row = Row.model_validate({**given, "options": {"mode": "signed"}})
    assert row.all_options == {"as_released": False, "mode": "signed"}
    with pytest.raises(ValueError, match=r"options\.mode: 1 found, 'plain' or 'signed' expected"):
        Row.model_validate({**given, "options": {"mode": 1}})
