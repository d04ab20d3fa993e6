"""The README's results."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.statistics import Verdict
from benchmark.config import CONFIGS, load_paper_values
from benchmark.report import contents, headline, table2
from benchmark.report.table2 import Table2
from benchmark.sweep import selection
from benchmark.sweep.selection import Selection


@pytest.fixture(scope="module")
def stored() -> Table2:
    """The committed results."""
    chosen = Selection("table2", RESULTS)
    return table2.build(chosen.plan, chosen.store, load_paper_values()["table2"])


def test_the_readme_shows_what_is_stored(stored: Table2, tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_bytes(headline.README.read_bytes())
    assert headline.write(stored, copy) == [copy]
    assert copy.read_bytes() == headline.README.read_bytes()


def test_every_stored_cell_has_a_line(stored: Table2) -> None:
    lines = headline.text(stored).splitlines()
    cells = [cell for cell in stored.cells.values() if cell.errors]
    assert cells
    assert len(lines) == 6 + len(cells)
    for cell, line in zip(cells, lines[6:], strict=True):
        assert f"| {cell.mean:.2f} ± {cell.std:.2f} (n=5) |" in line
        assert cell.paper is None or f"| {cell.paper.mean:.2f} ± {cell.paper.std:.2f} |" in line
    printed = load_paper_values()["table2"].cells
    there = [
        (row, column)
        for (row, column), cell in stored.cells.items()
        if cell.errors and column in printed.get(row, ())
    ]
    line, verdicts = lines[0].removesuffix(".").split(". Verdicts on all: ")
    head, *absent = line.split("; ")
    count = sum(map(len, printed.values()))
    assert head == f"{len(there)} of the {count} cells of the paper's Table 2"
    parts = [part.split(" ", 1) for part in verdicts.split(", ")]
    counts = {verdict: int(number) for number, verdict in parts}
    assert sum(counts.values()) == count
    assert counts["INCOMPLETE"] == count - len(there)
    assert counts["EQUIVALENT"] == sum(
        cell.verdict is Verdict.EQUIVALENT for place, cell in stored.cells.items() if place in there
    )
    rows = [row for row in printed if row not in {row for row, _ in there}]
    columns = {name: stored.plan.title(name) for name in stored.columns}
    titles = [title for name, title in columns.items() if name not in {column for _, column in there}]
    expected = [f"none yet of the row{'s' * (len(rows) > 1)} {', '.join(rows)}"] * bool(rows) + [
        f"none on {', '.join(titles)}"
    ] * bool(titles)
    assert absent == expected


def test_only_what_is_between_the_marks_changes(stored: Table2, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{headline.BEGIN}stale\n{headline.END}\nbelow\n")
    assert headline.write(stored, readme) == [readme]
    assert readme.read_text() == f"above\n{headline.BEGIN}{headline.text(stored)}{headline.END}\nbelow\n"


def test_without_marks_nothing_is_written(stored: Table2, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    assert headline.write(stored, readme) == []
    readme.write_text("no marks\n")
    assert headline.write(stored, readme) == []
    assert readme.read_text() == "no marks\n"


@pytest.mark.parametrize(
    "text", [headline.BEGIN, headline.END, headline.END + headline.BEGIN, 2 * (headline.BEGIN + headline.END)]
)
def test_a_mark_without_the_other_is_an_error(stored: Table2, tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(UserError, match="each once"):
        headline.write(stored, readme)
    assert readme.read_text() == text


def test_only_the_plans_own_table_reaches_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another plan may keep its runs in the same folder."""
    (tmp_path / "mine.yaml").write_text(f"base: {CONFIGS / 'table2.yaml'}\ntitle: Mine\n")
    monkeypatch.setattr(selection, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(contents, "RESULTS", tmp_path / "results")
    written: list[str] = []
    monkeypatch.setattr(headline, "write", lambda table: written.append(table.plan.name) or [])
    quiet = Console(file=StringIO())
    for plan, epochs, results in (
        ("table2", None, "results"),
        ("table2", 7, "results"),
        ("table2", None, "elsewhere"),
        (str(tmp_path / "mine.yaml"), None, "results"),
    ):
        chosen = Selection(plan, tmp_path / results, epochs=epochs)
        chosen.root.mkdir(exist_ok=True)
        contents.report_table2(chosen, quiet)
    assert written == ["table2"]
