"""The ledger of the paper's claims, as a table and as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.common.statistics import ALPHA
from benchmark.comparison.cells import kept_note
from benchmark.comparison.claims import ClaimVerdict, Ledger
from benchmark.report import markdown
from benchmark.report.files import write_texts


def note(ledger: Ledger) -> str:
    """How the verdicts are to be read."""
    return (
        "SUPPORTED: our stored runs show it. NOT SUPPORTED: they do not, which need not mean that they show "
        "the contrary. INCOMPLETE: parts of the claim are without data or have a diverged seed, and the "
        "others do not decide it. NO DATA: all of them are. Differences of test errors are paired by seed, "
        "with 95% intervals, and not tested where a seed diverged (nor, with p = 1, where all seeds have the "
        "same difference); sensitivity "
        "is compared by a bootstrap over configurations; p is one-sided, corrected (Holm) over those parts "
        f"of the claim that have data, and SUPPORTED means that it is then at most {ALPHA:g}. Claims are "
        "not corrected for being many: of those with a p, each has that chance of being SUPPORTED though "
        "untrue. What has no p must hold for every seed; of a ratio of times, both ends of value ± spread "
        f"must hold. {kept_note(ledger.plan)}. Margins and their reasons stand with the claims in "
        "paper_configs/claims.yaml."
    )


def counts(ledger: Ledger) -> str:
    """`2 SUPPORTED, 19 NO DATA`."""
    found = Counter(judgement.verdict for judgement in ledger.judgements)
    return ", ".join(f"{found[v]} {ledger.shown(v)}" for v in ClaimVerdict if found[v])


def show(ledger: Ledger, console: Console) -> None:
    """Print every claim with its verdict and the numbers behind it."""
    grid = Grid(title=escape(f"Claims of the paper on {ledger.plan.heading}"), show_lines=True)
    grid.add_column("claim", overflow="fold")
    grid.add_column("verdict")
    grid.add_column("numbers", overflow="fold")
    for judgement in ledger.judgements:
        quoted = f"{judgement.name}\n{judgement.claim.section}: {judgement.claim.quote}"
        there = [part for part in judgement.parts if part.verdict is not ClaimVerdict.NO_DATA]
        lines = [f"{part.where}: {ledger.judged(part)}. {part.numbers}" for part in there]
        lacking = [part for part in judgement.parts if part.verdict is ClaimVerdict.NO_DATA]
        gaps = [part.where if part.commands else f"{part.where} ({part.numbers})" for part in lacking]
        lines += [f"no data: {'; '.join(gaps)}"] if gaps else []
        grid.add_row(escape(quoted), ledger.shown(judgement.verdict), escape("\n".join(lines)))
    console.print(grid)
    if ledger.warning:
        console.print(ledger.warning, style="bold", markup=False)
    console.print(note(ledger), markup=False)
    if ledger.commands:
        console.print("Missing data come from:", markup=False)
        for command in ledger.commands:
            console.print(f"  {command}", markup=False)
    console.print(counts(ledger), style="bold", markup=False)


def write(ledger: Ledger, folder: Path) -> list[Path]:
    """The ledger as Markdown and CSV; returns the files."""
    table = ledger.frame().to_csv(index=False, lineterminator="\n")
    texts = {"md": "\n".join(_markdown(ledger)) + "\n", "csv": table}
    return write_texts(folder, ledger.plan.file_name("claims"), texts)


def _markdown(ledger: Ledger) -> Iterator[str]:
    yield from (f"# Claims of the paper: {counts(ledger)}", "", ledger.plan.heading, "")
    if ledger.warning:
        yield from (f"**{ledger.warning}**", "")
    yield from markdown.table(
        ("claim", "verdict", "parts"),
        [(j.name, f"**{ledger.shown(j.verdict)}**", ledger.summary(j)) for j in ledger.judgements],
    )
    yield from ("", note(ledger))
    for judgement in ledger.judgements:
        claim = judgement.claim
        yield from ("", f"## {judgement.name}: {ledger.shown(judgement.verdict)}", "")
        yield from (f"> {claim.quote}", "", f"({claim.section})", "")
        margin = "of the plan" if claim.margin == "plan" else f"{claim.margin:g}"
        yield f"Margin {margin}: {claim.reason}"
        if claim.need == "any":
            yield "One part is enough."
        yield ""
        parts = [(part.where, ledger.judged(part), part.numbers) for part in judgement.parts]
        yield from markdown.table(("part", "verdict", "numbers"), parts)
    if ledger.commands:
        yield from ("", "## What gets the missing data", "")
        yield from (f"- `{command}`" for command in ledger.commands)
