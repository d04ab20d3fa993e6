"""The store's test errors beside made-up numbers of the paper, and their verdicts."""

import shlex
from pathlib import Path

import pytest

from benchmark.common.errors import UserError
from benchmark.comparison.cells import Cell, judged, read_cells
from benchmark.config import PaperTable
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import MARGINS, PAPER, fill, fill_late, select


def read(chosen: Selection, paper: PaperTable = PAPER) -> dict[str, Cell]:
    """The cells of MNIST by row."""
    cells = judged(read_cells(chosen.plan, chosen.store, paper), chosen.plan, paper.n)
    return {row: cell for (row, column), cell in cells.items() if column == "mnist"}


def test_a_verdict_is_tried_at_the_last_epochs(tmp_path: Path) -> None:
    """Thirty epochs of which the last three, and one too early to count, put BP at the paper's value."""
    chosen = select(tmp_path, MARGINS.replace("epochs: 1,", "epochs: 30,"))
    fill_late(chosen)
    cell = read(chosen)["BP"]
    assert (cell.kept, len(cell.late)) == (3, 20)
    assert cell.late_mean == pytest.approx((3 * 1.85 + 17 * 9.0) / 20 + 0.0015)
    assert cell.verdict == "EQUIVALENT"


def test_incomplete_cells(tmp_path: Path) -> None:
    """A diverged seed, two good ones, and nothing."""
    chosen = select(tmp_path, MARGINS)
    fill(chosen, {"BP": [2.0, 2.2]}, diverged=1)
    fill(chosen, {"DTP": [2.0, 2.2]})
    cells = read(chosen)
    found = {row: (cells[row].verdict, cells[row].comparison is None) for row in ("BP", "DTP", "DRL")}
    assert found == {
        "BP": ("INCOMPLETE", True),
        "DTP": ("INCONCLUSIVE", False),
        "DRL": ("INCOMPLETE", True),
    }
    one = select(tmp_path, MARGINS.replace("seeds: [1, 2]", "seeds: [1]"))
    fill(one, {"DTP": [2.5]})
    assert read(one)["DTP"].verdict == "INCOMPLETE"


def test_only_the_last_epoch_counts(tmp_path: Path) -> None:
    chosen = select(tmp_path, epochs=3)
    fill(chosen, {"DTP": [3.0, 4.0]})
    cell = read(chosen)["DTP"]
    assert (cell.errors, cell.value) == ((3.0, 4.0), "3.50 ± 0.71")


def test_mixed_data_are_refused(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen, {"DTP": [3.0, 4.0]})
    fill(chosen, {"DRL": [3.0, 4.0]}, data="e" * 64)
    with pytest.raises(UserError, match="mnist: stored runs were trained on different images") as error:
        read(chosen)
    assert "\n" not in str(error.value)


def test_commands_survive_blanks(tmp_path: Path) -> None:
    for row, cell in read(select(tmp_path, seeds="3,4")).items():
        words = shlex.split(cell.command)
        assert words[:4] == ["python", "-m", "benchmark", "run"]
        assert words[4] == str(tmp_path / "made up.yaml")
        results = ["--results", str(tmp_path / "results")]
        assert words[5:] == ["--method", row, "--dataset", "mnist", "--seeds", "3,4", *results]
        assert cell.command == "python -m benchmark run " + shlex.join(words[4:])
