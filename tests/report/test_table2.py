"""Table 2, rebuilt from a committed store (`tests/golden`) and from made-up ones."""

import csv
import io
import re
import shlex
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console
from scipy import stats

from benchmark.cli import app
from benchmark.common.errors import UserError
from benchmark.common.progress import console
from benchmark.config import PaperCell, PaperTable, load_paper_values
from benchmark.report import table2
from benchmark.report.contents import REPORTS
from benchmark.sweep import run
from benchmark.sweep.selection import Selection
from tests.helpers.commands import Command
from tests.helpers.made_up import MARGINS, PAPER, PLAN, fill, fill_late, select

GOLDEN = Path(__file__).parent.parent / "golden"
MINI = "fashion-mnist-mini"
SUFFIXES = ("csv", "md", "tex")


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the committed sweep, as the current folder."""
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    monkeypatch.chdir(folder)
    # The committed runs were made under this number.
    monkeypatch.setattr(run, "SEMANTICS", 1)
    return folder


@pytest.fixture
def command(golden: Path, ended: Command) -> Command:
    """`python -m benchmark` in that folder."""
    return partial(ended, app.main)


def test_golden_tables_come_out_byte_for_byte(golden: Path, command: Command) -> None:
    for _ in range(2):
        assert command("report", "golden.yaml", "--results", "results")[0] == 0
        written = {f.name: f.read_bytes() for f in (golden / "results" / "tables").iterdir()}
        assert sorted(written) == [f"golden.{suffix}" for suffix in SUFFIXES]
        for name, content in written.items():
            assert content == (golden / "expected" / name).read_bytes()


def test_golden_numbers_are_those_of_the_runs() -> None:
    """Mean and deviation, computed anew from the stored files alone."""
    finals = {}
    for folder in (GOLDEN / "results" / "runs" / MINI).iterdir():
        record = yaml.safe_load((folder / "run.yaml").read_text())
        with open(folder / "epochs.csv") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) == 2]
        finals[record["row"]] = [float(row["test_error"]) for row in rows]
    assert len(finals) == 4
    with open(GOLDEN / "expected" / "golden.csv") as stream:
        lines = {line["method"]: line for line in csv.DictReader(stream)}
    markdown = (GOLDEN / "expected" / "golden.md").read_text()
    for row, errors in finals.items():
        mean, std = statistics.mean(errors), statistics.stdev(errors)
        assert int(lines[row]["n"]) == len(errors) == 3
        assert float(lines[row]["mean"]) == pytest.approx(mean, abs=5.1e-5)
        assert float(lines[row]["std"]) == pytest.approx(std, abs=5.1e-5)
        assert f"{mean:.2f} ± {std:.2f}" in markdown
    assert lines["L-DRL (half size)"]["mean"] == ""


def test_golden_table_read_by_a_person() -> None:
    """784-16-16-10: 12544 + 256 + 160 weights; learned decoders: 16-16, 10-16. Half size: width 8."""
    expected = """\
| [BP (as released)] | 0.01 M | 0.01 M | 27.50 ± 1.82 (n=3) |
| DTP | 0.03 M | 0.01 M | 52.03 ± 1.25 (n=3) |
| L-DRL (half size) | 0.01 M | 0.01 M | - |
| FW-DTP | 0.01 M | 0.01 M | 86.07 ± 6.55 (n=3) |
"""
    markdown = (GOLDEN / "expected" / "golden.md").read_text()
    assert expected in markdown
    assert "**NOT COMPARABLE WITH THE PAPER" in markdown
    table = pd.read_csv(GOLDEN / "expected" / "golden.csv").set_index("method")
    assert table.loc["BP", ["params", "trained"]].tolist() == [12960, 12960]
    assert table.loc["DTP", ["params", "trained"]].tolist() == [2 * 12960, 12960 + 256 + 160]
    assert table.loc["L-DRL (half size)", ["params", "trained"]].tolist() == [2 * 6416, 6416 + 64 + 80]
    assert table.loc["FW-DTP", ["params", "trained"]].tolist() == [12960, 12960]


def test_the_command_of_an_empty_cell_fills_it(golden: Path, command: Command) -> None:
    (line,) = re.findall(r"`(python -m benchmark .*)`", (golden / "expected" / "golden.md").read_text())
    words = shlex.split(line)[3:]
    assert words[-2:] == ["--results", "results"]
    assert command(*words, "--device", "cpu")[0] == 0
    assert command("report", "golden.yaml", "--results", "results")[0] == 0
    markdown = (golden / "results" / "tables" / "golden.md").read_text()
    assert "Empty cells" not in markdown
    assert re.search(r"^\| L-DRL \(half size\) .*\d+\.\d\d ± \d+\.\d\d.*\(n=3\) \|$", markdown, re.M)


def test_other_seeds_or_epochs_leave_the_table_alone(golden: Path, command: Command) -> None:
    report = ("report", "golden.yaml", "--results", "results")
    assert command(*report)[0] == 0
    for seeds, epochs in (("1,2", None), (None, 3)):
        chosen = Selection("golden.yaml", Path("results"), seeds=seeds, epochs=epochs)
        REPORTS["table2"](chosen, console)
    tables = golden / "results" / "tables"
    for suffix in SUFFIXES:
        expected = (golden / "expected" / f"golden.{suffix}").read_bytes()
        assert (tables / f"golden.{suffix}").read_bytes() == expected
    for name, options in (("golden-seeds-1-2", "--seeds 1,2"), ("golden-3-epochs", "--epochs 3")):
        text = (tables / f"{name}.md").read_text()
        assert text.count(f"--dataset {MINI} {options} --results results`") == 5


def written(chosen: Selection, folder: Path) -> dict[str, str]:
    table = table2.build(chosen.plan, chosen.store, PAPER)
    return {file.suffix[1:]: file.read_text() for file in table2.write(table, folder)}


def test_ranking_among_target_propagation_rows(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    best = {"BP": [1.0, 1.0], "L-DRL #2_a & b": [1.1, 1.1]}
    fill(chosen, {**best, "DTP": [3.0, 4.0], "DRL": [2.0, 3.0], "L-DRL": [5.0, 6.0]})
    text = written(chosen, tmp_path)
    for cell in ("**2.50 ± 0.71** (n=2)", "<u>3.50 ± 0.71</u> (n=2)", "| 5.50 ± 0.71 (n=2)", "| 1.00 ± 0.00"):
        assert cell in text["md"]
    assert (text["md"].count("**"), text["md"].count("<u>")) == (2, 1)
    assert r"\textbf{2.50 $\pm$ 0.71}" in text["tex"]
    assert r"\underline{3.50 $\pm$ 0.71}" in text["tex"]
    assert (text["tex"].count(r"\textbf"), text["tex"].count(r"\underline")) == (1, 1)


def test_ties_share_a_rank(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen, {"DTP": [3.0, 3.001], "DRL": [3.001, 3.0], "L-DRL": [4.0, 4.0]})
    table = table2.build(chosen.plan, chosen.store, PAPER)
    assert [table.rank(row, "mnist") for row in ("BP", "DTP", "DRL", "L-DRL")] == [0, 1, 1, 2]


def test_no_rank_before_all_are_there(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen, {"DTP": [3.0, 4.0], "DRL": [2.0, 3.0]})
    text = written(chosen, tmp_path)
    assert not any(mark in text["md"] for mark in ("**2", "**3", "<u>"))
    assert r"\textbf" not in text["tex"]


def test_one_row_is_no_ranking(tmp_path: Path) -> None:
    rows = "{DRL: null, L-DRL: null, 'L-DRL #2_a & b': null}"
    (tmp_path / "base.yaml").write_text(PLAN)
    chosen = select(tmp_path, f"base: base.yaml\ntitle: Less\nrows: {rows}\n")
    fill(chosen, {"DTP": [3.0, 4.0]})
    table = table2.build(chosen.plan, chosen.store, PAPER)
    assert table.rank("DTP", "mnist") == 0


def test_an_addition_stands_beside_the_papers_row(tmp_path: Path) -> None:
    released = MARGINS.replace("    addition: true\n", "    addition: true\n    paper_row: BP\n", 1)
    chosen = select(tmp_path, released)
    fill(chosen, {"BP (as released)": [1.9, 2.0]})
    table = table2.build(chosen.plan, chosen.store, PAPER)
    cell = table.cells["BP (as released)", "mnist"]
    assert cell.paper == PAPER.cells["BP"]["mnist"]
    assert cell.comparison is not None
    assert str(cell.comparison).startswith("+0.10 [")
    alone = cell.comparison
    fill(chosen, {"BP": [1.8, 1.9], "DTP": [2.0, 3.0], "DRL": [2.0, 2.5]})
    table = table2.build(chosen.plan, chosen.store, PAPER)
    assert table.cells["BP (as released)", "mnist"].comparison == alone  # corrected for itself only
    compared = {row: cell.comparison.compared for (row, _), cell in table.cells.items() if cell.comparison}
    assert compared == {"BP": 3, "BP (as released)": 1, "DTP": 3, "DRL": 3}
    said = table.verdicts or ""
    ours = "1 EQUIVALENT, 1 DIFFERENT, 1 INCONCLUSIVE"
    assert said.startswith(f"Verdicts: {ours}; in brackets, of what is not in the paper: 1 EQUIVALENT.")
    assert "over the 3 cells of the paper that are compared" in said
    assert "the 1 in brackets are two families more" in said
    with pytest.raises(UserError, match=r"BP \(as released\)\.paper_row: 'BPP' found, allowed: BP, FA, TP, "):
        select(tmp_path, released.replace("paper_row: BP", "paper_row: BPP"))


def test_paper_value_and_difference(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen, {"BP": [2.0, 2.2], "DTP": [2.0, 2.0]})
    text = written(chosen, tmp_path)
    assert "2.10 ± 0.14 (n=2)<br>paper 1.85 ± 0.09, +0.25" in text["md"]
    assert "| 2.00 ± 0.00 (n=2)<br>paper 2.50 ± 0.50, -0.50" in text["md"]
    assert "| -<br>paper 9.00 ± 0.50 |" in text["md"]
    assert "·<br>paper 11.77 ± 0.16" in text["md"]
    assert r"2.10 $\pm$ 0.14 (1.85 $\pm$ 0.09)" in text["tex"]
    frame = pd.read_csv(tmp_path / "made up.csv").set_index(["method", "dataset"])
    assert frame.loc[("BP", "mnist"), "difference"] == pytest.approx(0.25)
    assert frame.loc[("DRL", "mnist"), "paper_mean"] == 9.0
    assert pd.isna(frame.loc[("DRL", "mnist"), "difference"])


def test_a_plan_that_is_not_comparable_shows_no_paper(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN.replace("comparable: true", "comparable: false"))
    fill(chosen, {"BP": [2.0, 2.2]})
    text = written(chosen, tmp_path)
    for suffix in ("md", "tex"):
        assert "NOT COMPARABLE WITH THE PAPER" in text[suffix]
        assert "1.85" not in text[suffix]
    assert "NOT COMPARABLE" not in "".join(written(select(tmp_path), tmp_path).values())


def test_verdicts(tmp_path: Path) -> None:
    """Each verdict once; the expected numbers come from SciPy's Welch test and a hand's Holm correction."""
    paper = PaperTable(
        n=5,
        spread="-",
        unit="-",
        cells={
            "BP": {"mnist": PaperCell(mean=1.85, std=0.09)},
            "DTP": {"mnist": PaperCell(mean=2.5, std=0.02)},
            "DRL": {"mnist": PaperCell(mean=9.0, std=0.5), "fashion-mnist": PaperCell(mean=9.0, std=0.5)},
            "L-DRL": {"mnist": PaperCell(mean=1.0, std=0.02)},
        },
    )
    chosen = select(tmp_path, MARGINS.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4, 5]"))
    ours = {
        "BP": [1.86, 1.8, 1.9, 1.83, 1.86],
        "DTP": [2.6, 2.61, 2.6, 2.59, 2.6],
        "DRL": [9.0, 8.0, 10.0, 9.5, 8.0],
        "L-DRL": [2.0, 2.01, 2.0, 1.99, 2.0],
    }
    fill(chosen, ours)
    table = table2.build(chosen.plan, chosen.store, paper)
    verdicts = {row: cell.verdict for (row, column), cell in table.cells.items() if column == "mnist"}
    assert verdicts == {
        "BP": "EQUIVALENT",
        "BP (as released)": None,
        "DTP": "DIFFERENT WITHIN MARGIN",
        "DRL": "INCONCLUSIVE",
        "L-DRL": "DIFFERENT",
        "L-DRL #2_a & b": None,
    }
    assert table.cells["DRL", "fashion-mnist"].verdict is None  # the plan has no such cell
    files = {file.suffix[1:]: file.read_text() for file in table2.write(table, tmp_path)}
    assert (
        "<br>paper 2.50 ± 0.02, +0.10 [+0.08, +0.12]<br>DIFFERENT WITHIN MARGIN (1 of 1 epochs) |"
        in files["md"]
    )
    assert re.search(
        r"<br>paper 9.00 ± 0.50, -0.10 \[-1\.\d\d, \+\d\.\d\d\]<br>INCONCLUSIVE "
        r"\(1 of 1 epochs\)<br>power to show equivalence 0%, corrected 0% \|",
        files["md"],
    )
    assert "Verdicts: 1 EQUIVALENT, 1 DIFFERENT, 1 DIFFERENT WITHIN MARGIN, 1 INCONCLUSIVE." in files["md"]
    assert "(MNIST 0.3)" in files["md"], "of Fashion-MNIST nothing is compared"
    assert "over the 4 cells of the paper that are compared" in files["md"]
    frame = pd.read_csv(tmp_path / "made up.csv").set_index(["method", "dataset"]).xs("mnist", level=1)
    raw = {
        row: stats.ttest_ind_from_stats(
            statistics.mean(errors), statistics.stdev(errors), 5, cell.mean, cell.std, 5, equal_var=False
        ).pvalue
        for row, errors in ours.items()
        for cell in [paper.cells[row]["mnist"]]
    }
    ascending = sorted(raw, key=lambda row: raw[row])
    largest = 0.0
    for rank, row in enumerate(ascending):
        largest = max(largest, min(1, (4 - rank) * raw[row]))
        assert frame.loc[row, "p_difference"] == pytest.approx(raw[row], rel=1e-3)
        assert frame.loc[row, "corrected_p_difference"] == pytest.approx(largest, rel=1e-3)
    assert frame["verdict"].dropna().to_dict() == {row: v for row, v in verdicts.items() if v is not None}
    console = Console(width=250, record=True, file=io.StringIO())
    table2.show(table, console, table.rows, table.columns)
    shown = console.export_text()
    assert "+0.10 [+0.08, +0.12]" in shown
    assert "\nVerdicts: " in shown


def test_incomplete_cells_say_so(tmp_path: Path) -> None:
    chosen = select(tmp_path, MARGINS)
    fill(chosen, {"BP": [2.0, 2.2]}, diverged=1)
    fill(chosen, {"DTP": [2.0, 2.2]})
    text = written(chosen, tmp_path)["md"]
    assert "over the 1 cells of the paper that are compared" in text
    assert "2.10 ± 0.14 (n=2, 1 diverged)<br>paper 1.85 ± 0.09, +0.25<br>INCOMPLETE" in text
    assert "| -<br>paper 9.00 ± 0.50<br>INCOMPLETE |" in text


def test_how_firm_a_verdict_is_stands_in_the_csv(tmp_path: Path) -> None:
    chosen = select(tmp_path, MARGINS.replace("epochs: 1,", "epochs: 30,"))
    fill_late(chosen)
    written(chosen, tmp_path)
    line = pd.read_csv(tmp_path / "made up.csv").set_index(["method", "dataset"]).loc[("BP", "mnist")]
    assert line[["kept", "verdict"]].tolist() == [3, "EQUIVALENT"]
    assert line["late_mean"] == pytest.approx((3 * 1.85 + 17 * 9.0) / 20 + 0.0015, 1e-4)


def test_what_a_verdict_would_be_alone_stands_in_the_csv(tmp_path: Path) -> None:
    """Of a difference that only the correction leaves open, and beside one that says nothing."""
    chosen = select(tmp_path, MARGINS.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4, 5]"))
    fill(chosen, {"BP": [3.45, 2.45, 3.95, 2.95, 1.95], "DRL": [9.0, 8.0, 10.0, 9.5, 8.0]})
    written(chosen, tmp_path)
    frame = pd.read_csv(tmp_path / "made up.csv").set_index(["method", "dataset"]).xs("mnist", level=1)
    found = frame.loc[["BP", "DRL"], ["verdict", "alone"]].to_numpy().tolist()
    assert found == [["INCONCLUSIVE", "DIFFERENT"], ["INCONCLUSIVE", "INCONCLUSIVE"]]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (PLAN, {}),
        (MARGINS.replace("comparable: true", "comparable: false"), {}),
        (MARGINS, {"epochs": 2}),
        (MARGINS, {"seeds": "3,4"}),
    ],
    ids=["no margins", "not comparable", "other epochs", "other seeds"],
)
def test_no_verdict_without_margin_or_on_another_protocol(
    tmp_path: Path, text: str, options: dict[str, Any]
) -> None:
    chosen = select(tmp_path, text, **options)
    fill(chosen, {"BP": [2.0, 2.2], "DTP": [2.0, 2.2]})
    table = table2.build(chosen.plan, chosen.store, PAPER)
    assert {cell.verdict for cell in table.cells.values()} == {None}
    assert table.verdicts is None
    assert not set(written(chosen, tmp_path)["md"].split()) & {"INCONCLUSIVE", "INCOMPLETE", "EQUIVALENT"}


def test_additions_are_bracketed_and_tex_is_escaped(tmp_path: Path) -> None:
    text = written(select(tmp_path), tmp_path)
    assert "[BP (as released)]" in text["md"]
    assert "[F-MNIST (mini)]" in text["md"]
    assert r"L-DRL \#2\_a \& b" in text["tex"]
    for line in text["tex"].splitlines():
        assert not line.startswith("["), "an optional argument of the line break above"
    body = text["tex"].split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    heads = next(line for line in text["tex"].splitlines() if line.startswith("Method"))
    assert len(body) == 6
    assert {len(re.findall(r"(?<!\\)&", line)) for line in (heads, *body)} == {5}


def test_diverged_seeds_and_short_seeds_show(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen, {"DTP": [90.2, 3.0]}, diverged=1)
    text = written(chosen, tmp_path)
    assert "(n=2, 1 diverged)" in text["md"]
    assert "[n=2, 1 diverged]" in text["tex"]
    assert pd.read_csv(tmp_path / "made up.csv").set_index("method").loc["DTP", "diverged"].max() == 1


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    chosen = select(tmp_path, seeds="7")
    fill(chosen, {"DTP": [3.25]})
    text = written(chosen, tmp_path)
    assert "| 3.25 (n=1)" in text["md"]
    assert "nan" not in "".join(text.values()).lower()


def test_labels_with_commas_can_be_chosen(tmp_path: Path) -> None:
    text = PLAN.replace("  BP (as released):", "  BP, as released:")
    for given, rows in (
        (["BP, as released"], ["BP, as released"]),
        (["bp, AS released", "DTP,DRL"], ["BP, as released", "DTP", "DRL"]),
    ):
        assert select(tmp_path, text, method=given).rows == rows
    chosen = select(tmp_path, text)
    table = table2.build(chosen.plan, chosen.store, PAPER)
    words = shlex.split(table.cells["BP, as released", "mnist"].command)
    assert words[words.index("--method") + 1] == "BP, as released"


def test_protocol_in_heading_and_warning(tmp_path: Path) -> None:
    text = written(select(tmp_path), tmp_path)
    assert text["md"].startswith("# Made up: 1 epochs, seeds 1, 2\n")
    assert text["tex"].startswith("% Made up: 1 epochs, seeds 1, 2. ")
    assert "PROTOCOL" not in "".join(text.values())
    chosen = select(tmp_path, seeds="4,3", epochs=3)
    warning = "NOT THE PAPER'S PROTOCOL: --seeds 3,4 --epochs 3"
    text = written(chosen, tmp_path)
    assert f"# Made up: 3 epochs, seeds 3, 4\n\n**{warning}**\n" in text["md"]
    assert f"\n% {warning}\n" in text["tex"]
    console = Console(width=200, record=True, file=io.StringIO())
    table = table2.build(chosen.plan, chosen.store, PAPER)
    table2.show(table, console, table.rows, table.columns)
    shown = console.export_text()
    assert "Made up: 3 epochs, seeds 3, 4" in shown
    assert f"\n{warning}\n" in shown
    assert select(tmp_path, seeds="2,1", epochs=1).plan.changes == ()
    table = table2.build(select(tmp_path, epochs=3).plan, chosen.store, PAPER)
    assert table.warning == "NOT THE PAPER'S PROTOCOL: --epochs 3"


def test_parameter_counts(tmp_path: Path) -> None:
    """Learned decoders count as much as encoders, fixed ones do not (fidelity note 7 has the paper's)."""
    chosen = Selection("table2", tmp_path)
    table = table2.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    printed = {row: table2.millions(table.params[row, "mnist"][0]) for row in table.rows}
    assert {printed[row] for row in ("BP", "FA", "FW-DTP")} == {"0.47 M"}
    assert {printed[row] for row in ("TP", "DTP", "DRL", "L-DRL")} == {"0.93 M"}
    for column in table.columns:
        full = table.params["BP", column][0]
        for row in ("DTP", "DRL", "L-DRL"):
            assert table.params[row, column][0] == 2 * full
            assert table.params[f"{row} (half size)", column][0] < 1.1 * full
    assert [table2.millions(n) for n in table.params["Shallow", "mnist"]] == ["0.47 M", "0.0026 M"]
    assert table.params["BP", "cifar-10"][0] == 3072 * 1024 + 2 * 1024**2 + 10 * 1024
    assert [column for column in table.columns if table.heads_group(column)] == ["mnist", "cifar-10"]


def test_every_value_of_the_paper_has_a_place(tmp_path: Path) -> None:
    chosen = Selection("table2", tmp_path)
    paper = load_paper_values()["table2"]
    table = table2.build(chosen.plan, chosen.store, paper)
    for row, cells in paper.cells.items():
        for column, value in cells.items():
            assert table.cells[row, column].paper == value


def test_shown_in_the_terminal(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen, {"BP": [2.0, 2.2]})
    table = table2.build(chosen.plan, chosen.store, PAPER)
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    table2.show(table, console, ["BP", "BP (as released)", "DTP"], ["mnist"])
    text = console.export_text()
    assert "[BP (as released)]" in text
    assert "2.10 ± 0.14 (n=2)" in text
    assert "--method DTP --dataset mnist" in text
    assert "--method DRL" not in text
