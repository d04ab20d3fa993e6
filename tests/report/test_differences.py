"""Rows against each other, seed by seed."""

from io import StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from benchmark.options import RESULTS, Selection
from benchmark.report import contents, differences
from benchmark.report.differences import Differences
from benchmark.results import EPOCH_COLUMNS
from benchmark.sweep import NOT_COMPARABLE
from tests.made_up import PAPER, PLAN, fill, record_of, select

SEEDS = PLAN.replace("seeds: [1, 2]", "seeds: [3, 1, 2]")
FINALS = {"BP": [2.0, 2.4, 2.1], "DTP": [2.5, 2.6, 2.6], "DRL": [9.0, 9.5, 9.7]}


def built(chosen: Selection) -> Differences:
    return differences.build(chosen.plan, chosen.store, PAPER)


def printed(chosen: Selection, rows: list[str]) -> list[list[str]]:
    """The cells of the lines that name two methods."""
    stream = StringIO()
    differences.show(built(chosen), Console(file=stream, width=200), rows, list(chosen.plan.config.columns))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in stream.getvalue().splitlines()]
    return [line for line in lines if line]


def test_is_the_paired_t_test_of_scipy(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, FINALS)
    pairs = built(chosen).pairs["mnist"]
    assert [(pair.row, pair.other) for pair in pairs] == list(combinations(FINALS, 2))
    for pair in pairs:
        expected = stats.ttest_rel(FINALS[pair.row], FINALS[pair.other])
        assert pair.last.p_difference == pytest.approx(expected.pvalue)
        assert pair.last.interval == pytest.approx(tuple(expected.confidence_interval()))
        assert pair.last.difference == pytest.approx(np.mean(FINALS[pair.row]) - np.mean(FINALS[pair.other]))
        assert pair.seeds == 3


def test_corrects_over_the_pairs_of_a_data_set(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, FINALS)
    pairs = sorted(built(chosen).pairs["mnist"], key=lambda pair: pair.last.p_difference)
    steps = [min(1, pair.last.p_difference * left) for pair, left in zip(pairs, (3, 2, 1), strict=True)]
    assert [pair.corrected_p for pair in pairs] == pytest.approx(list(np.maximum.accumulate(steps)))
    assert pairs[0].corrected_p > pairs[0].last.p_difference


def test_the_last_twenty_epochs_are_each_seeds_mean(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS.replace("epochs: 1,", "epochs: 30,"))
    rng = np.random.default_rng(0)
    errors = {row: rng.uniform(2, 3, (30, 3)) for row in ("BP", "DTP")}
    errors["BP"][:10] += 50  # before the last twenty
    for row, table in errors.items():
        run = chosen.plan.run(row, "mnist")
        assert run is not None
        lines = [
            [epoch + 1, seed, 0.5, table[epoch, place], False]
            for epoch in range(30)
            for place, seed in enumerate(run.seeds)
        ]
        chosen.store.commit(row, record_of(run), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))
    (pair,) = built(chosen).pairs["mnist"]
    late = {row: table[10:].mean(axis=0) for row, table in errors.items()}
    expected = stats.ttest_rel(late["BP"], late["DTP"])
    assert pair.late.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert pair.last.difference == pytest.approx((errors["BP"][-1] - errors["DTP"][-1]).mean())


def test_one_row_is_shown_against_all_others(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, FINALS)
    lines = printed(chosen, ["DTP"])
    assert [line[:2] for line in lines] == [["DTP", "BP"], ["DTP", "DRL"]]
    assert lines[0][2].startswith("+0.40 [")
    assert lines[1][2].startswith("-6.83 [")


def test_several_rows_are_shown_among_themselves(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, FINALS)
    assert [line[:2] for line in printed(chosen, ["DRL", "BP"])] == [["BP", "DRL"]]
    assert len(printed(chosen, chosen.rows)) == 3


def test_turned_is_the_other_way_round(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, FINALS)
    for pair in built(chosen).pairs["mnist"]:
        low, high = pair.last.interval
        assert pair.turned.last.interval == pytest.approx((-high, -low))
        assert pair.turned.last.p_difference == pytest.approx(pair.last.p_difference)
        assert pair.turned.turned == pair


def test_what_is_not_stored_is_no_pair(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, {"BP": FINALS["BP"]})
    assert built(chosen).pairs == {"mnist": [], "fashion-mnist": [], "cifar-10-jpeg": []}
    stream = StringIO()
    assert contents.report_differences(chosen, Console(file=stream, width=200))[1] == []
    assert "No two of these rows are stored" in stream.getvalue()
    assert built(chosen).frame().empty


def test_one_seed_says_nothing(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN, seeds="1")
    fill(chosen, {"BP": [2.0], "DTP": [2.5]})
    assert built(chosen).pairs["mnist"] == []


def test_diverged_seeds_are_named(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS)
    fill(chosen, {"BP": FINALS["BP"]})
    fill(chosen, {"DTP": FINALS["DTP"]}, diverged=2)
    (line,) = printed(chosen, chosen.rows)
    assert line[2].endswith(", 2 diverged")
    assert list(built(chosen).frame()["diverged"]) == [2]


def test_files_and_page(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS, epochs=2)  # not as written, hence not comparable
    fill(chosen, FINALS)
    files, (exhibit,) = contents.report_differences(chosen, Console(file=StringIO()))
    stem = "differences-made up-2-epochs"
    assert [file.name for file in files] == [f"{stem}.md", f"{stem}.csv"]
    text = files[0].read_text()
    assert "| BP | DTP | -0.40 [" in text
    assert "NOT THE PAPER'S PROTOCOL" in text
    frame = pd.read_csv(files[1])
    assert list(frame["minus"]) == ["DTP", "DRL", "DRL"]
    assert (frame["low"] < frame["difference"]).all()
    assert (frame["difference"] < frame["high"]).all()
    assert exhibit.table is not None
    assert exhibit.warning is not None
    assert [row.cells[0].text for row in exhibit.table.rows] == list(FINALS)
    table = [[cell.text for cell in row.cells[1:]] for row in exhibit.table.rows]
    assert table[0][1:] == ["−0.40", "−7.23"]
    assert [line[place] for place, line in enumerate(table)] == ["–"] * 3
    assert table[2][0] == "+7.23"
    pairs = {(pair.row, pair.other): pair for pair in built(chosen).pairs["mnist"]}
    assert [cell.rank for cell in exhibit.table.rows[0].cells[2:]] == [
        int(pairs["BP", other].corrected_p <= 0.05) for other in ("DTP", "DRL")
    ]
    assert {cell.rank for row in exhibit.table.rows for cell in row.cells} == {0, 1}


def test_quick_is_not_comparable() -> None:
    chosen = Selection("quick", None, None, None, None, RESULTS)
    assert built(chosen).plan.warning == NOT_COMPARABLE


def test_stored_differences_are_those_of_the_ledger() -> None:
    """FW-DTP against DTP on MNIST, as `claims.csv` has it in words."""
    chosen = Selection("table2", None, None, None, None, RESULTS)
    found = built(chosen).of("mnist", ["FW-DTP"])
    (pair,) = [pair for pair in found if pair.other == "DTP"]
    claims = pd.read_csv(RESULTS / "tables" / "claims.csv")
    numbers = claims[claims["part"] == "MNIST: FW-DTP against DTP"]["numbers"]
    assert len(numbers)
    assert all(f"difference {pair.texts[2]} over" in text for text in numbers)
