"""Everything that is rebuilt from the store, by name: printed, written to files, and put on the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.common.files import RESULTS
from benchmark.config import load_paper_values
from benchmark.sweep.selection import Selection

if TYPE_CHECKING:
    from benchmark.report.html import Exhibit, RunsHref

Shown = Callable[[], list["Exhibit"]]
"""Makes what the page shows of a report."""
Report = Callable[[Selection, Console], tuple[list[Path], Shown]]
"""Builds from the store, writes, and prints (last, since who reads may close the pipe: `| head`); returns the
files and what the page shows."""

TITLE = "FW-DTP benchmark"
INTRO = (
    "Fixed-Weight Difference Target Propagation (Shibuya, Inoue, Kawakami, and Sato, AAAI 2023), trained "
    "anew: what was measured, beside what the paper printed. Every number is rebuilt from stored results."
)


def page_file(chosen: Selection) -> Path:
    return chosen.figures / f"{chosen.plan.file_name('report')}.html"


def _exhibits() -> ModuleType:
    """The module of the page's sections, which imports that of every report."""
    from benchmark.report import exhibits

    return exhibits


def _links(chosen: Selection) -> RunsHref:
    """Links from the page to the stored runs."""
    from benchmark.report import html

    return html.links_to(chosen.store, page_file(chosen))


def report_table1(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.report import table1

    table = table1.build(chosen.plan, chosen.store)
    files = table1.write(table, chosen.root / "tables")
    table1.show(table, console)
    return files, lambda: [_exhibits().of_table1(table)]


def report_table2(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.report import headline, table2

    table = table2.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = table2.write(table, chosen.root / "tables")
    if chosen.root == RESULTS and chosen.plan.source == "table2" and not chosen.plan.changes:
        files += headline.write(table)
    table2.show(table, console, chosen.rows, chosen.columns)
    return files, lambda: [_exhibits().of_table2(table, _links(chosen))]


def report_differences(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.report import differences

    found = differences.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = differences.write(found, chosen.root / "tables")
    differences.show(found, console, chosen.rows, chosen.columns)
    return files, lambda: _exhibits().of_differences(found)


def report_curves(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.report import curves

    found = curves.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = curves.write(found, chosen.root / "tables", chosen.figures)
    curves.show(found, console, chosen.rows, chosen.columns)
    return files, lambda: _exhibits().of_curves(found, files, page_file(chosen))


def report_table3(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.report import table3

    table = table3.build(chosen.plan, chosen.store, load_paper_values())
    files = table3.write(table, chosen.root / "tables")
    table3.show(table, console)
    return files, lambda: [_exhibits().of_table3(table)]


def report_figure2(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.report import figure2

    figure = figure2.build(chosen.plan, chosen.store)
    files = figure2.write(figure, chosen.figures)
    figure2.show(figure, console)
    return files, lambda: [_exhibits().of_figure2(figure, files, page_file(chosen))]


def report_figure3(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    """The plan's own figure, and the same of the other studies that the store has."""
    from benchmark.report import figure3

    figures, left_out = figure3.build_others(chosen.plan, chosen.store)
    if _has_own_figure3(chosen):
        figures.insert(0, figure3.build(chosen.plan, chosen.store))
    notes = [f"Left out: {reason}." for reason in left_out]
    files = list[Path]()
    written = [figure3.write(figure, chosen.figures, chosen.root / "tables") for figure in figures]
    for figure, drawn in zip(figures, written, strict=True):
        figure3.show(figure, console)
        files += drawn
    for note in notes:
        console.print(note, markup=False)
    page = page_file(chosen)
    return files, lambda: [
        _exhibits().of_figure3(figure, notes, drawn, page)
        for figure, drawn in zip(figures, written, strict=True)
    ]


def _has_own_figure3(chosen: Selection) -> bool:
    from benchmark.studies.sensitivity.design import default_column, default_rows

    column = default_column(chosen.plan)
    return all(chosen.plan.run(row, column) is not None for row in default_rows(chosen.plan))


def report_claims(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    from benchmark.comparison import claims
    from benchmark.report import claims as ledger_files

    ledger = claims.verify(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = ledger_files.write(ledger, chosen.root / "tables")
    ledger_files.show(ledger, console)
    return files, lambda: [_exhibits().of_claims(ledger)]


def report_runs(chosen: Selection, console: Console) -> tuple[list[Path], Shown]:
    """No exhibit: the page has the runs at its end, under Provenance."""
    from benchmark.report import runs

    found = runs.build(chosen.plan, chosen.store)
    files = runs.write(found, chosen.root / "tables")
    runs.show(found, console)
    return files, list


REPORTS: dict[str, Report] = {
    "table2": report_table2,
    "figure2": report_figure2,
    "table1": report_table1,
    "figure3": report_figure3,
    "table3": report_table3,
    "claims": report_claims,
    "differences": report_differences,
    "curves": report_curves,
    "runs": report_runs,
}
"""In the order of the page."""

MEASURED = {"table1": "conditions", "figure2": "jacobian"}
"""What a plan measures during training for the reports that rest on it."""
WHATEVER = ("figure3", "table3")
"""Those that other seeds, epochs or precisions of the plan do not change."""


def available(chosen: Selection) -> list[str]:
    """The reports that the selection's plan has anything to say to."""
    return [name for name in REPORTS if is_available(name, chosen)]


def is_available(name: str, chosen: Selection) -> bool:
    """Whether the selection's plan has anything to say to a report."""
    if name in MEASURED:
        return MEASURED[name] in chosen.plan.config.measure
    if name in WHATEVER and chosen.plan.changes:
        return False
    if name == "differences":
        return len(chosen.plan.config.protocol.seeds) > 1
    if name == "curves":
        return chosen.plan.config.protocol.epochs > 1
    if name == "figure3":
        from benchmark.studies.sensitivity.design import default_storage, stored

        return _has_own_figure3(chosen) or bool(stored(chosen.plan, default_storage(chosen.store)))
    if name == "table3":
        from benchmark.studies.timing.points import PROFILES

        return any(profile.plan == chosen.plan.source for profile in PROFILES.values())
    return True


def report_all(chosen: Selection, console: Console) -> list[Path]:
    """Every report of the plan, and the page."""
    from benchmark.report import html

    files: list[Path] = []
    sections: list[Exhibit] = []
    for name in available(chosen):
        written, shown = REPORTS[name](chosen, console)
        files += written
        sections += shown()
    file = page_file(chosen)
    title = TITLE if chosen.plan.source == "table2" else f"{TITLE}: {chosen.plan.config.title}"
    text = html.page(title, INTRO, sections, html.provenance(chosen.store, file))
    return [*files, html.write(text, file)]
