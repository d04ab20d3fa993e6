"""Every report of the committed store."""

import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.common.files import RESULTS
from benchmark.report.contents import REPORTS
from benchmark.sweep.selection import Selection


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    """Table 2 in a copy of the store, of which nothing is written yet."""
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("tables", "figures"))
    return Selection("table2", tmp_path / "results")


@pytest.mark.parametrize("name", REPORTS)
def test_files_are_written_before_anything_is_printed(chosen: Selection, name: str) -> None:
    """Who reads may have closed the pipe: `report table2 | head`."""

    def written() -> set[Path]:
        return {file for place in (chosen.root / "tables", chosen.figures) for file in place.glob("*")}

    class Watched(StringIO):
        at_first: set[Path] | None = None

        def write(self, text: str) -> int:
            if self.at_first is None:
                self.at_first = written()
            return super().write(text)

    assert not written()
    printed = Watched()
    files, _ = REPORTS[name](chosen, Console(file=printed))
    assert files
    assert printed.at_first == set(files)
