"""The stored runs, as a table."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.config import CONFIGS
from benchmark.report import runs
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import record_of

PLAN = f"""\
base: {CONFIGS / "table2.yaml"}
title: "Made up"
protocol: {{epochs: 1, seeds: [3, 1, 2]}}
"""
VERSIONS = {"torch": "2.15.0", "commit": "0123456789abcdef+changes"}
SITTING = {
    "started": "2026-01-02T03:04:05+00:00",
    "device": "Abacus",
    "execution": "eager",
    "versions": VERSIONS,
}
MADE = {
    "finished": "2026-01-02T04:05:06+00:00",
    "training_seconds": 3723.4,
    "sittings": [SITTING, {**SITTING, "device": "Cogwheel"}, {**SITTING, "device": "Abacus"}],
}


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    (tmp_path / "made-up.yaml").write_text(PLAN)
    return Selection(str(tmp_path / "made-up.yaml"), tmp_path / "results")


def keep(chosen: Selection, run: Run, **made: Any) -> None:
    epochs = range(1, run.epochs + 1)
    errors = [[epoch, seed, 0.5, 9.0, False] for epoch in epochs for seed in run.seeds]
    lines = pd.DataFrame(errors, columns=list(EPOCH_COLUMNS))
    tables = {name: pd.DataFrame({"epoch": [1]}) for name in run.measure}
    chosen.store.commit(run.row, record_of(run, **made), lines, tables)


def planned(plan: Plan, row: str, column: str) -> Run:
    run = plan.run(row, column)
    assert run is not None
    return run


def lines(file: Path) -> list[list[str]]:
    """The cells of the tables of a Markdown file, heads and rules aside."""
    rows = [line.strip("| ").split(" | ") for line in file.read_text().splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "run"]


def test_runs_of_the_plan_come_first_and_in_its_order(chosen: Selection) -> None:
    plan = chosen.plan
    other = plan.with_protocol([7], None)
    for run in (planned(other, "BP", "mnist"), planned(plan, "FA", "mnist"), planned(plan, "BP", "mnist")):
        keep(chosen, run, **MADE)
    found = runs.build(plan, chosen.store)
    assert [run.record["label"] for run in found.cells] == ["BP", "FA"]
    assert [run.spec["seeds"] for run in found.others] == [[7]]
    frame = found.frame()
    assert list(frame["of the plan"]) == [True, True, False]
    assert list(frame["seeds"]) == ["1 to 3", "1 to 3", "7"]
    assert list(runs.build(other, chosen.store).frame()["seeds"]) == ["7", "1 to 3", "1 to 3"]


def test_data_sets_and_seeds_are_in_order(chosen: Selection) -> None:
    plan = chosen.plan
    for row, column in (("BP", "fashion-mnist"), ("FA", "mnist"), ("BP", "mnist")):
        keep(chosen, planned(plan, row, column), **MADE)
    for seed in (5, 3, 4, 12):
        keep(chosen, planned(plan.with_protocol([seed], None), "BP", "mnist"), **MADE)
    keep(chosen, planned(plan.with_protocol([1], 2), "BP", "mnist"))
    keep(chosen, planned(plan.with_protocol([1], None), "FA", "cifar-10"))
    found = runs.build(plan, chosen.store)
    assert [(run.spec["dataset"]["name"], run.record["label"]) for run in found.cells] == [
        ("mnist", "BP"), ("mnist", "FA"), ("fashion-mnist", "BP")
    ]  # fmt: skip
    assert [run.spec["seeds"] for run in found.others] == [[1], [3], [4], [5], [12], [1]]
    assert found.others[0].spec["dataset"]["name"] == "cifar-10"


def test_what_a_run_says_of_its_making(chosen: Selection) -> None:
    run = planned(chosen.plan, "BP", "fashion-mnist")
    keep(chosen, run, **MADE)
    markdown, csv = runs.write(runs.build(chosen.plan, chosen.store), chosen.root / "tables")
    expected = [
        "BP", "fashion-mnist", "1 to 3", "1", "1:02:03", "Abacus; Cogwheel", "eager",
        "2026-01-02 04:05 UTC", run.key,
    ]  # fmt: skip
    assert lines(markdown) == [expected]
    (line,) = pd.read_csv(csv).to_dict("records")
    assert (line["torch"], line["commit"]) == ("2.15.0", "0123456789+changes")
    assert (line["data"], line["precision"]) == ("d" * 12, "float32")
    text = markdown.read_text()
    assert "## Behind Made up: 1 epochs, seeds 1, 2, 3\n" in text
    assert "## Others\n\nNone.\n" in text
    console = Console(file=StringIO(), record=True, width=200)
    runs.show(runs.build(chosen.plan, chosen.store), console)
    assert run.key in console.export_text()


def test_another_protocol_has_files_of_its_own(chosen: Selection) -> None:
    other = chosen.plan.with_protocol([7], None)
    files = runs.write(runs.build(other, chosen.store), chosen.root / "tables")
    assert [file.name for file in files] == ["runs-made-up-seeds-7.md", "runs-made-up-seeds-7.csv"]


def test_an_old_sitting_without_execution(chosen: Selection) -> None:
    old = {name: value for name, value in SITTING.items() if name != "execution"}
    keep(chosen, planned(chosen.plan, "FA", "mnist"), sittings=[old])
    keep(chosen, planned(chosen.plan, "BP", "mnist"), sittings=[old, SITTING])
    said = [runs.described(run)["execution"] for run in runs.build(chosen.plan, chosen.store).cells]
    assert said == ["eager", ""]


def test_the_committed_list_is_that_of_the_store(tmp_path: Path) -> None:
    chosen = Selection("table2", RESULTS)
    for file in runs.write(runs.build(chosen.plan, chosen.store), tmp_path):
        assert file.read_text() == (RESULTS / "tables" / file.name).read_text()


def test_a_run_without_the_measurements_still_fills_its_cell(chosen: Selection) -> None:
    run = planned(chosen.plan, "DTP", "mnist")
    assert run.measure
    keep(chosen, run.unmeasured, **MADE)
    found = runs.build(chosen.plan, chosen.store)
    assert [stored.record["key"] for stored in found.cells] == [run.unmeasured.key]
    keep(chosen, run, **MADE)
    found = runs.build(chosen.plan, chosen.store)
    assert [stored.record["key"] for stored in found.cells] == [run.key]
    assert [stored.record["key"] for stored in found.others] == [run.unmeasured.key]


def test_an_empty_store(chosen: Selection) -> None:
    console = Console(record=True, width=200)
    found = runs.build(chosen.plan, chosen.store)
    runs.show(found, console)
    assert "0 other runs" in console.export_text()
    markdown, csv = runs.write(found, chosen.root / "tables")
    assert markdown.read_text().count("None.") == 2
    assert csv.read_text().startswith("of the plan,run,data set,")


def test_a_damaged_run_is_an_error(chosen: Selection) -> None:
    run = planned(chosen.plan, "BP", "mnist")
    keep(chosen, run)
    folder = chosen.store.folder(run.key)
    assert folder is not None
    (folder / "epochs.csv").write_text("damaged")
    with pytest.raises(UserError, match="changed since the run was stored"):
        runs.build(chosen.plan, chosen.store)


@pytest.mark.parametrize(
    ("seeds", "said"), [([7], "7"), ([1, 2], "1, 2"), ([1, 2, 3], "1 to 3"), ([1, 3, 4], "1, 3, 4")]
)
def test_seeds_are_spelled(seeds: list[int], said: str) -> None:
    assert runs.spelled(seeds) == said
