"""Rows against each other, paired by seed."""

import re
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

from benchmark.common.files import RESULTS
from benchmark.common.statistics import Difference
from benchmark.report import contents, differences
from benchmark.report.differences import NOTE, Differences, Pair
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.sweep.plan import NOT_COMPARABLE
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import PAPER, PLAN, record_of, select

EPOCHS = 30
ADDED = "mine #2_a & b"
"""In brackets it looks like markup of rich."""
SEEDS = (
    PLAN.replace("seeds: [1, 2]", "seeds: [3, 1, 2, 5, 4]")
    .replace("epochs: 1,", f"epochs: {EPOCHS},")
    .replace("L-DRL #2_a & b", ADDED)
)
FIRST_ADDED = "BP (as released)"
ROWS = ("BP", FIRST_ADDED, "DTP", "DRL", ADDED)
MEANS = {"BP": 2.0, FIRST_ADDED: 2.12, "DTP": 2.25, "DRL": 9.0, ADDED: 2.15}
"""By which of five seeds' pairs some are found different, some only before correction, some not at all."""
LATE_SHIFT = {"BP": 3.0, "DTP": 1.0}
"""What is added before the last epoch."""
PAPERS = [("BP", "DTP"), ("BP", "DRL"), ("DTP", "DRL")]

QUIET = Console(file=StringIO())
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


def keep(
    chosen: Selection,
    errors: Mapping[str, Any],
    diverged: Mapping[str, int] | None = None,
    column: str = "mnist",
) -> None:
    """Store test errors of rows, (epochs, seeds) in the plan's order of seeds."""
    for row, table in errors.items():
        run = chosen.plan.run(row, column)
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


def shown(chosen: Selection, rows: list[str] | None = None, **options: Any) -> str:
    stream = StringIO()
    console = Console(file=stream, width=400, **options)
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
        steps = [min(1, pair.last.p_difference * (len(names) - i)) for i, pair in enumerate(family)]
        assert [pair.corrected_p for pair in family] == pytest.approx(list(np.maximum.accumulate(steps)))


def test_every_data_set_is_corrected_by_itself(chosen: Selection, errors: Errors) -> None:
    before = pairs_of(built(chosen))
    keep(chosen, {row: errors[row] for row in ("BP", FIRST_ADDED)}, column="fashion-mnist-mini")
    found = built(chosen)
    assert len(found.pairs["fashion-mnist-mini"]) == 1
    assert pairs_of(found) == before


@pytest.mark.parametrize(("corrected", "found"), [(0.05, True), (0.0501, False), (None, False)])
def test_found_means_at_most_five_percent(corrected: float | None, found: bool) -> None:
    apart = Difference.paired([0.1, 0.2, 0.3])
    assert Pair("BP", "FA", 3, apart, apart, "", corrected).found is found


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
        assert line == [label(pair.row), label(pair.other), str(pair.last), *p, str(pair.late)]
        assert str(pair.last).startswith(f"{pair.last.difference:+.2f} [{pair.last.interval[0]:+.2f}, ")
    assert "MNIST: Pairs corrected together: 3 without a row in brackets, 7 with one." in text
    assert f"Hyperparameters guessed: BP, [{FIRST_ADDED}], DTP, DRL, [{ADDED}]. Not stored: L-DRL." in text
    assert NOTE in " ".join(text.split())


def label(row: str) -> str:
    return f"[{row}]" if row in (FIRST_ADDED, ADDED) else row


def test_what_is_found_is_bold(chosen: Selection) -> None:
    bold = set(re.findall(r"\x1b\[1m([^\x1b]+)\x1b", shown(chosen, force_terminal=True)))
    pairs = built(chosen).pairs["mnist"]
    assert {str(pair.last) for pair in pairs if pair.found} <= bold
    assert not bold & {str(pair.last) for pair in pairs if not pair.found}


def test_values_of_another_data_set_are_said(tmp_path: Path, errors: Errors) -> None:
    """They may suit some rows better than others."""
    column = "fashion-mnist: {network: 1x8"
    text = SEEDS.replace(column, f"{column}, hyperparameters_from: mnist")
    chosen = select(tmp_path, text.replace("&bp {", "&bp {fashion-mnist: {lr: 0.1, source: search}, "))
    keep(chosen, {row: errors[row] for row in ("BP", "DTP", "DRL")}, column="fashion-mnist")
    assert "guessed: DTP, DRL. Hyperparameters of another data set: DTP, DRL." in shown(chosen)
    keep(chosen, {row: errors[row] for row in ("BP", "DTP")})
    assert "Hyperparameters guessed: BP, DTP. Not stored" in shown(chosen)


@pytest.mark.parametrize("epochs", [EPOCHS, EPOCHS + 1])
def test_the_command_trains_what_is_missing(tmp_path: Path, errors: Errors, epochs: int) -> None:
    """Data sets by name: absent ones that the paper has not are else skipped."""
    chosen = select(tmp_path, SEEDS, epochs=epochs)
    longer = {row: np.concatenate([table, table[-1:]])[-epochs:] for row, table in errors.items()}
    keep(chosen, longer)
    keep(chosen, {"L-DRL": longer["BP"]})
    keep(chosen, {"BP": longer["BP"]}, column="fashion-mnist-mini")
    text = shown(chosen)
    changes = [] if epochs == EPOCHS else ["--epochs", str(epochs)]
    options = [*changes, "--results", str(tmp_path / "results")]
    source = shlex.quote(str(tmp_path / "made up.yaml"))
    command = f"python -m benchmark run {source} --dataset fashion-mnist-mini {shlex.join(options)}"
    assert text.splitlines()[-1] == f"`{command}` trains what is not stored, `--method` a part of it."
    assert f"\n`{command}` trains" in contents.report_differences(chosen, QUIET)[0][0].read_text()
    keep(chosen, {FIRST_ADDED: longer["BP"]}, column="fashion-mnist-mini")
    assert "trains what is not stored" not in shown(chosen)
    assert "Not stored" not in shown(chosen)
    assert "trains what is not stored" not in contents.report_differences(chosen, QUIET)[0][0].read_text()


def test_one_row_is_shown_against_all_others(chosen: Selection) -> None:
    found = pairs_of(built(chosen))
    printed = lines(shown(chosen, ["DTP"]))
    assert [line[:2] for line in printed] == [["DTP", label(row)] for row in ROWS if row != "DTP"]
    assert printed[0][2] == str(found["BP", "DTP"].turned.last)
    assert printed[2][2] == str(found["DTP", "DRL"].last)


def test_several_rows_are_shown_among_themselves(chosen: Selection) -> None:
    assert [line[:2] for line in lines(shown(chosen, ["DRL", "BP"]))] == [["BP", "DRL"]]


def test_only_the_chosen_data_sets_are_shown(chosen: Selection) -> None:
    chosen.columns = ["fashion-mnist"]
    assert lines(shown(chosen)) == []
    chosen.columns = ["mnist"]
    assert len(lines(shown(chosen))) == 10


def test_a_row_that_is_not_stored_is_named_with_its_command(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS)
    keep(chosen, {"BP": errors["BP"]})
    text = shown(chosen, ["DTP"])
    assert "MNIST: Nothing to compare." in text
    assert f"Not stored: [BP (as released)], DTP, DRL, L-DRL, [{ADDED}]." in text
    assert "--dataset mnist,fashion-mnist-mini " in text
    assert contents.report_differences(chosen, QUIET)[1]() == []
    assert built(chosen).frame().empty


@pytest.mark.parametrize("rows", [["L-DRL"], ["L-DRL", "BP"]])
def test_chosen_rows_without_a_pair_are_said(chosen: Selection, rows: list[str]) -> None:
    text = shown(chosen, rows)
    assert lines(text) == []
    assert "MNIST: Nothing to compare of what was chosen. Pairs corrected together: 3 " in text


def test_one_seed_says_nothing(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS, seeds="1")
    keep(chosen, {row: table[:, :1] for row, table in errors.items()})
    assert built(chosen).pairs["mnist"] == []


def test_diverged_seeds_are_named_and_not_tested(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS)
    keep(chosen, {row: errors[row] for row in ROWS if row != FIRST_ADDED}, {"BP": 2, "DRL": 1, ADDED: 1})
    found = pairs_of(built(chosen))
    assert found["BP", "DRL"].untested == "no test: 2 of BP diverged, 1 of DRL diverged"
    assert found["BP", "DTP"].untested == "no test: 2 of BP diverged"
    tested = {names for names, pair in found.items() if pair.untested is None}
    assert tested == set()
    assert found["DTP", ADDED].untested == f"no test: 1 of [{ADDED}] diverged"
    printed = {(line[0], line[1]): line[2:] for line in lines(shown(chosen))}
    last = found["BP", "DRL"].last
    late = found["BP", "DRL"].late
    text = f"{last.difference:+.2f} (no test: 2 of BP diverged, 1 of DRL diverged)"
    assert printed["BP", "DRL"] == [text, "-", "-", f"{late.difference:+.2f}"]
    line = built(chosen).frame().set_index(["method", "minus"]).loc[("BP", "DRL")]
    assert line[["low", "high", "p_difference", "corrected_p_difference", "late_low"]].isna().all()
    assert not found["BP", "DRL"].found
    counts = "0 without a row in brackets, 0 with one; not tested: 6."
    assert f"Pairs corrected together: {counts}" in shown(chosen)


def test_pairs_with_diverged_seeds_count_in_no_correction(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS)
    keep(chosen, {row: errors[row] for row in ("BP", "DTP", "DRL")}, diverged={"DRL": 1})
    pair = pairs_of(built(chosen))["BP", "DTP"]
    assert pair.corrected_p == pytest.approx(pair.last.p_difference)


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


def test_a_single_image_of_many_is_spread(tmp_path: Path) -> None:
    chosen = select(tmp_path, SEEDS, epochs=1, seeds="1-3")
    ours = np.array([[2.78, 3.06, 2.5]])
    keep(chosen, {"BP": ours, "DTP": np.add(ours, [0.28, 0.28, 0.284])})
    (pair,) = built(chosen).pairs["mnist"]
    assert pair.untested is None


def test_files(chosen: Selection) -> None:
    found = built(chosen)
    pairs = found.pairs["mnist"]
    files, _ = contents.report_differences(chosen, QUIET)
    assert [file.name for file in files] == ["differences-made up.md", "differences-made up.csv"]
    text = files[0].read_text()
    assert NOTE in text
    assert "## F-MNIST\n\nNothing to compare." in text
    for pair in pairs:
        marked = f"**{pair.last}**" if pair.found else str(pair.last)
        p = f"{pair.last.p_difference:.2g}"
        assert f"| {label(pair.row)} | {label(pair.other)} | {marked} | {p} |" in text
    frame = pd.read_csv(files[1])
    assert list(frame["dataset"]) == ["mnist"] * 10
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
        }
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-3)


def test_page(chosen: Selection) -> None:
    found = pairs_of(built(chosen))
    _, exhibits = contents.report_differences(chosen, QUIET)
    (exhibit,) = exhibits()
    assert exhibit.table is not None
    labels = [label(row) for row in ROWS]
    assert [column.text for column in exhibit.table.columns] == ["row minus column", *labels]
    assert [row.cells[0].text for row in exhibit.table.rows] == labels
    assert exhibit.notes[0] == f"{NOTE} Late: mean of the last 20 epochs."
    assert exhibit.missing == (chosen.plan.run_command("L-DRL", "mnist"),)
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
    _, exhibits = contents.report_differences(chosen, QUIET)
    (exhibit,) = exhibits()
    assert exhibit.table is not None
    cell = exhibit.table.rows[0].cells[2]
    assert (cell.rank, cell.details[0].text) == (0, "no test: 1 of L-DRL diverged")


@pytest.mark.parametrize(
    ("epochs", "said"),
    [(2, "all 2 epochs"), (20, "all 20 epochs"), (21, "the last 20 epochs")],
)
def test_late_says_of_what(tmp_path: Path, epochs: int, said: str) -> None:
    assert built(select(tmp_path, SEEDS, epochs=epochs)).late == f"mean of {said}"


def test_another_protocol_is_said(tmp_path: Path, errors: Errors) -> None:
    chosen = select(tmp_path, SEEDS, epochs=1)
    keep(chosen, errors)
    assert built(chosen).heads[-1] == "mean of the only epoch"
    assert "NOT THE PAPER'S PROTOCOL" in shown(chosen)
    files, exhibits = contents.report_differences(chosen, QUIET)
    (exhibit,) = exhibits()
    assert files[0].name == "differences-made up-1-epochs.md"
    assert "NOT THE PAPER'S PROTOCOL" in files[0].read_text()
    assert exhibit.warning == chosen.plan.warning


def test_quick_is_not_comparable() -> None:
    chosen = Selection("quick", RESULTS)
    assert built(chosen).plan.warning == NOT_COMPARABLE
