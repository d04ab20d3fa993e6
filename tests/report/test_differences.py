"""Rows against each other, paired by seed."""

import shlex
from collections.abc import Mapping
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from benchmark.options import RESULTS, Selection
from benchmark.report import contents, differences
from benchmark.report.differences import NOTE, Differences, Pair
from benchmark.results import EPOCH_COLUMNS
from benchmark.sweep import NOT_COMPARABLE
from tests.made_up import PAPER, PLAN, record_of, select

EPOCHS = 30
SEEDS = PLAN.replace("seeds: [1, 2]", "seeds: [3, 1, 2, 5, 4]").replace("epochs: 1,", f"epochs: {EPOCHS},")
ADDED = "L-DRL #2_a & b"
ROWS = ("BP", "DTP", "DRL", ADDED)
MEANS = {"BP": 2.0, "DTP": 2.25, "DRL": 9.0, ADDED: 2.15}
"""By which of five seeds' pairs some are found different, some only before correction, some not at all."""
LATE_SHIFT = {"BP": 3.0, "DTP": 1.0}
"""What is added before the last epoch."""
PAPERS = [("BP", "DTP"), ("BP", "DRL"), ("DTP", "DRL")]

Errors = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def errors() -> Errors:
    """Test errors of every row, (epochs, seeds)."""
    rng = np.random.default_rng(8)
    found = {row: MEANS[row] + 0.1 * rng.standard_normal((EPOCHS, 5)) for row in ROWS}
    for row, shift in LATE_SHIFT.items():
        found[row][:-1] += shift
        found[row][:10] += 30  # before the last twenty
    return found


def keep(chosen: Selection, errors: Mapping[str, Any], diverged: Mapping[str, int] | None = None) -> None:
    """Store test errors of rows on MNIST, (epochs, seeds) in the plan's order of seeds."""
    for row, table in errors.items():
        run = chosen.plan.run(row, "mnist")
        assert run is not None
        lost = (diverged or {}).get(row, 0)
        lines = [
            [epoch + 1, seed, 0.5, table[epoch][place], place < lost]
            for epoch in range(run.epochs)
            for place, seed in enumerate(run.seeds)
        ]
        chosen.store.commit(row, record_of(run), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))


def built(chosen: Selection) -> Differences:
    return differences.build(chosen.plan, chosen.store, PAPER)


def pairs_of(found: Differences) -> dict[tuple[str, str], Pair]:
    return {(pair.row, pair.other): pair for pair in found.pairs["mnist"]}


def shown(chosen: Selection, rows: list[str] | None = None) -> str:
    stream = StringIO()
    console = Console(file=stream, width=250)
    differences.show(built(chosen), console, rows or chosen.rows, chosen.columns)
    return stream.getvalue()


def lines(text: str) -> list[list[str]]:
    """The cells of the lines that name two methods."""
    found = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return [line for line in found if line]


@pytest.fixture
def chosen(tmp_path: Path, errors: Errors) -> Selection:
    selection = select(tmp_path, SEEDS)
    keep(selection, errors)
    return selection


def test_are_the_paired_t_tests_of_scipy(chosen: Selection, errors: Errors) -> None:
    found = pairs_of(built(chosen))
    assert list(found) == list(combinations(ROWS, 2))
    for (row, other), pair in found.items():
        for ours, table in ((pair.last, lambda row: errors[row][-1]), (pair.late, _late(errors))):
            expected = stats.ttest_rel(table(row), table(other))
            assert ours.p_difference == pytest.approx(expected.pvalue)
            assert ours.interval == pytest.approx(tuple(expected.confidence_interval()))
            assert ours.difference == pytest.approx(np.mean(table(row) - table(other)))
        assert pair.seeds == 5


def _late(errors: Errors) -> Any:
    return lambda row: errors[row][10:].mean(axis=0)


def test_the_papers_rows_are_corrected_apart(chosen: Selection) -> None:
    """As in Table 2, a row that one adds weakens nothing that is said of the paper's."""
    found = pairs_of(built(chosen))
    for names in (PAPERS, [names for names in found if names not in PAPERS]):
        family = sorted((found[name] for name in names), key=lambda pair: pair.last.p_difference)
        steps = [min(1, pair.last.p_difference * (3 - place)) for place, pair in enumerate(family)]
        assert [pair.corrected_p for pair in family] == pytest.approx(list(np.maximum.accumulate(steps)))


def test_found_is_what_is_left_after_correction(chosen: Selection) -> None:
    found = pairs_of(built(chosen)).values()
    undecided = [p for p in found if p.last.p_difference <= 0.05 < (p.corrected_p or 0)]
    assert undecided  # else the next line would not tell p from corrected p
    assert [pair.found for pair in found] == [(pair.corrected_p or 0) <= 0.05 for pair in found]
    assert {pair.found for pair in found} == {True, False}


def test_turned_is_the_other_way_round(chosen: Selection) -> None:
    for pair in built(chosen).pairs["mnist"]:
        turned = pair.turned
        assert (turned.row, turned.other) == (pair.other, pair.row)
        for ours, theirs in ((turned.last, pair.last), (turned.late, pair.late)):
            assert ours.interval == pytest.approx((-theirs.interval[1], -theirs.interval[0]))
            assert ours.p_difference == pytest.approx(theirs.p_difference)
        assert turned.turned == pair


def test_what_is_printed(chosen: Selection) -> None:
    found = built(chosen)
    text = shown(chosen)
    heads = ("method", "minus", "after the last epoch", "p", "corrected", "mean of the last 20 epochs")
    assert found.heads == heads
    for line, pair in zip(lines(text), found.pairs["mnist"], strict=True):
        p = [f"{pair.last.p_difference:.2g}", f"{pair.corrected_p:.2g}"]
        label = f"[{pair.other}]" if pair.other == ADDED else pair.other
        assert line == [pair.row, label, str(pair.last), *p, str(pair.late)]
        assert str(pair.last).startswith(f"{pair.last.difference:+.2f} [{pair.last.interval[0]:+.2f}, ")
    assert "MNIST: Corrected over 3 pairs of the paper's rows and over 3 with a row in brackets." in text
    assert f"Hyperparameters guessed: BP, DTP, DRL, [{ADDED}]." in text
    assert "Not stored: [BP (as released)], L-DRL." in text
    assert NOTE in " ".join(text.split())
    assert "`python -m benchmark run " in text


def test_one_row_is_shown_against_all_others(chosen: Selection) -> None:
    found = pairs_of(built(chosen))
    printed = lines(shown(chosen, ["DTP"]))
    assert [line[:2] for line in printed] == [["DTP", "BP"], ["DTP", "DRL"], ["DTP", f"[{ADDED}]"]]
    assert printed[0][2] == str(found["BP", "DTP"].turned.last)
    assert printed[1][2] == str(found["DTP", "DRL"].last)


def test_several_rows_are_shown_among_themselves(chosen: Selection) -> None:
    assert [line[:2] for line in lines(shown(chosen, ["DRL", "BP"]))] == [["BP", "DRL"]]


def test_only_the_chosen_data_sets_are_shown(chosen: Selection) -> None:
    chosen.columns = ["fashion-mnist"]
    assert lines(shown(chosen)) == []
    chosen.columns = ["mnist"]
    assert len(lines(shown(chosen))) == 6


def test_a_row_that_is_not_stored_is_named_with_its_command(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS)
    keep(chosen, {"BP": errors["BP"]})
    text = shown(chosen, ["DTP"])
    assert "MNIST: Nothing to compare." in text
    assert "Not stored: [BP (as released)], DTP, DRL, L-DRL, [L-DRL #2_a & b]." in text
    options = shlex.join(["--results", str(tmp_path / "results")])
    source = shlex.quote(str(tmp_path / "made up.yaml"))
    assert f"`python -m benchmark run {source} {options}` trains what is not stored" in text
    assert contents.report_differences(chosen, Console(file=StringIO()))[1] == []
    assert built(chosen).frame().empty


def test_one_seed_says_nothing(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS, seeds="1")
    keep(chosen, {row: table[:, :1] for row, table in errors.items()})
    assert built(chosen).pairs["mnist"] == []


def test_diverged_seeds_are_named_and_not_tested(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS)
    keep(chosen, errors, diverged={"BP": 2, "DRL": 1})
    found = pairs_of(built(chosen))
    assert found["BP", "DRL"].untested == "no test: 2 of BP diverged, 1 of DRL diverged"
    assert found["BP", "DTP"].untested == "no test: 2 of BP diverged"
    tested = {names for names, pair in found.items() if pair.untested is None}
    assert tested == {("DTP", ADDED)}
    assert found["DTP", ADDED].corrected_p == pytest.approx(found["DTP", ADDED].last.p_difference)
    printed = {(line[0], line[1]): line[2:] for line in lines(shown(chosen))}
    last = found["BP", "DRL"].last
    late = found["BP", "DRL"].late
    text = f"{last.difference:+.2f} (no test: 2 of BP diverged, 1 of DRL diverged)"
    assert printed["BP", "DRL"] == [text, "-", "-", f"{late.difference:+.2f}"]
    line = built(chosen).frame().set_index(["method", "minus"]).loc[("BP", "DRL")]
    assert line[["low", "high", "p_difference", "corrected_p_difference", "late_low"]].isna().all()
    assert not found["BP", "DRL"].found
    assert "over 0 pairs of the paper's rows and over 1 with a row in brackets; 5 are not tested." in shown(
        chosen
    )


@pytest.mark.parametrize("apart", [0.0, 0.28])
def test_no_spread_is_no_certainty(tmp_path: Path, apart: float) -> None:
    """Errors are multiples of a share of the test set: on few seeds, differences can be the same."""
    chosen = select(tmp_path, SEEDS, epochs=1, seeds="1-3")
    ours = np.array([[2.78, 3.06, 2.5]])
    keep(chosen, {"BP": ours, "DTP": ours + apart})
    (pair,) = built(chosen).pairs["mnist"]
    assert pair.untested == "no test: the same on all seeds"
    assert not pair.found
    ((_, _, *cells),) = lines(shown(chosen))
    said = f"{-apart:+z.2f}"
    assert cells == [f"{said} (no test: the same on all seeds)", "-", "-", said]


def test_files(chosen: Selection) -> None:
    found = built(chosen)
    pairs = found.pairs["mnist"]
    files, _ = contents.report_differences(chosen, Console(file=StringIO()))
    assert [file.name for file in files] == ["differences-made up.md", "differences-made up.csv"]
    text = files[0].read_text()
    assert NOTE in text
    assert "## F-MNIST\n\nNothing to compare." in text
    assert "\n`python -m benchmark run " in text
    for pair in pairs:
        marked = f"**{pair.last}**" if pair.found else str(pair.last)
        assert (
            f"| {pair.row} | {chosen.plan.label(pair.other)} | {marked} | {pair.last.p_difference:.2g} |"
            in text
        )
    frame = pd.read_csv(files[1])
    assert list(frame["dataset"]) == ["mnist"] * 6
    assert frame["untested"].isna().all()
    for _, line in frame.iterrows():
        pair = pairs_of(found)[line["method"], line["minus"]]
        expected = {
            "seeds": 5,
            "difference": pair.last.difference,
            "low": pair.last.interval[0],
            "high": pair.last.interval[1],
            "p_difference": pair.last.p_difference,
            "corrected_p_difference": pair.corrected_p,
            "late_difference": pair.late.difference,
            "late_low": pair.late.interval[0],
            "late_high": pair.late.interval[1],
            "late_p_difference": pair.late.p_difference,
        }
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-3)


def test_page(chosen: Selection) -> None:
    found = pairs_of(built(chosen))
    _, (exhibit,) = contents.report_differences(chosen, Console(file=StringIO()))
    assert exhibit.table is not None
    labels = [*ROWS[:3], f"[{ADDED}]"]
    assert [column.text for column in exhibit.table.columns] == ["row minus column", *labels]
    assert [row.cells[0].text for row in exhibit.table.rows] == labels
    assert exhibit.notes[0] == f"{NOTE} Late: mean of the last 20 epochs."
    assert exhibit.missing == tuple(
        chosen.plan.run_command(row, "mnist") for row in ("BP (as released)", "L-DRL")
    )
    assert not exhibit.complete
    for row, line in zip(ROWS, exhibit.table.rows, strict=True):
        for other, cell in zip(ROWS, line.cells[1:], strict=True):
            if row == other:
                assert cell.text == "–"
                continue
            pair = found[row, other] if (row, other) in found else found[other, row].turned
            value, interval = str(pair.last).replace("-", "−").split(" ", 1)
            late = f"late {pair.late.difference:+.2f}".replace("-", "−")
            assert (cell.text, *(line.text for line in cell.details)) == (value, interval, late)
            assert cell.rank == pair.found


def test_page_says_what_is_not_tested(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS)
    keep(chosen, {"L-DRL": errors["BP"], "DRL": errors["DRL"]}, diverged={"L-DRL": 1})
    _, (exhibit,) = contents.report_differences(chosen, Console(file=StringIO()))
    assert exhibit.table is not None
    cell = exhibit.table.rows[0].cells[2]
    assert (cell.rank, cell.details[0].text) == (0, "no test: 1 of L-DRL diverged")


def test_another_protocol_is_said(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS, epochs=1)
    keep(chosen, errors)
    assert built(chosen).heads[-1] == "mean of the last epoch"
    assert "NOT THE PAPER'S PROTOCOL" in shown(chosen)
    files, (exhibit,) = contents.report_differences(chosen, Console(file=StringIO()))
    assert files[0].name == "differences-made up-1-epochs.md"
    assert "NOT THE PAPER'S PROTOCOL" in files[0].read_text()
    assert exhibit.warning == chosen.plan.warning


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
    assert all(f"difference {pair.last} over" in text for text in numbers)
