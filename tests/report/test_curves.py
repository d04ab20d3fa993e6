"""Learning curves of made-up runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from benchmark.report import contents, curves
from benchmark.report.curves import Curves
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.sweep.plan import NOT_COMPARABLE
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import PAPER, PLAN, record_of, select

LONG = PLAN.replace("epochs: 1,", "epochs: 40,")
FALLING = [20.0 - epoch / 4 for epoch in range(40)]
"""20 % after the first epoch, 10.25 % after the last."""
DIP = [9.0 if epoch == 8 else 12.0 for epoch in range(1, 41)]
"""Lowest after the eighth epoch."""


def keep(
    chosen: Selection, row: str, column: str, *seeds: Sequence[float], diverged: Sequence[bool] = (False,) * 2
) -> None:
    """Store a row whose seeds have these errors after each epoch."""
    run = chosen.plan.run(row, column)
    assert run is not None
    lines = [
        [epoch, seed, 0.5, error, lost]
        for seed, errors, lost in zip(run.seeds, seeds, diverged, strict=True)
        for epoch, error in enumerate(errors, 1)
    ]
    chosen.store.commit(row, record_of(run), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))


def built(chosen: Selection) -> Curves:
    return curves.build(chosen.plan, chosen.store, PAPER)


def shown(chosen: Selection) -> str:
    printed = StringIO()
    curves.show(built(chosen), Console(file=printed, width=400), chosen.rows, chosen.columns)
    return printed.getvalue()


def panels(canvas: Figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in canvas.get_axes()}


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    """Two rows on MNIST, one on F-MNIST (mini), forty epochs of two seeds."""
    made = select(tmp_path, LONG)
    keep(made, "BP", "mnist", FALLING, [error + 1 for error in FALLING])
    keep(made, "BP (as released)", "mnist", DIP, DIP)
    keep(made, "BP", "fashion-mnist-mini", FALLING, FALLING)
    return made


def test_the_numbers(chosen: Selection) -> None:
    frame = built(chosen).frame()
    assert list(frame["dataset"]) == ["mnist", "mnist", "fashion-mnist-mini"]
    bp, released = frame.iloc[0], frame.iloc[1]
    assert (bp["method"], bp["n"]) == ("BP", 2)
    # Half a point above the first seed: the mean of both.
    expected = {
        "epoch 4": 19.75, "epoch 8": 18.75, "epoch 20": 15.75, "epoch 40": 10.75,
        "lowest": 10.75, "late_mean": 13.125, "late_lowest": 10.25, "late_highest": 16.0,
    }  # fmt: skip
    assert {name: bp[name] for name in expected} == pytest.approx(expected)
    assert (bp["lowest_epoch"], released["lowest_epoch"]) == (40, 8)
    assert (released["lowest"], released["epoch 40"], released["late_lowest"]) == (9, 12, 12)


@pytest.mark.parametrize(
    ("epochs", "marks"), [(100, [10, 20, 50, 100]), (5, [1, 3, 5]), (3, [1, 2, 3]), (2, [1, 2])]
)
def test_the_epochs_that_are_shown(tmp_path: Path, epochs: int, marks: list[int]) -> None:
    chosen = select(tmp_path, PLAN.replace("epochs: 1,", f"epochs: {epochs},"))
    assert built(chosen).marks == marks


def test_what_is_printed(chosen: Selection) -> None:
    text = shown(chosen)
    line = next(line for line in text.splitlines() if "BP (as" in line and "│" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == [
        "[BP (as released)]", "n=2", "12.00", "9.00", "12.00", "12.00", "9.00 (8)", "12.00", "12.00 to 12.00",
    ]  # fmt: skip
    assert "MNIST: Not complete: DTP, DRL, L-DRL, [L-DRL #2_a & b]." in text
    assert re.search("--dataset mnist,fashion-mnist-mini .*` trains what is not stored", text)


def test_rows_and_data_sets_can_be_chosen(chosen: Selection, tmp_path: Path) -> None:
    text = shown(select(tmp_path, LONG, method=["BP", "DTP"], dataset=["mnist"]))
    assert "│ BP " in text
    assert "as released" not in text
    assert "CIFAR" not in text
    assert "MNIST: Not complete: DTP." in text
    assert "trains what is not stored" in text
    complete = shown(select(tmp_path, LONG, method=["BP"], dataset=["mnist"]))
    assert "│ BP " in complete
    assert "not stored" not in complete


def test_diverged_seeds_are_said(tmp_path: Path) -> None:
    chosen = select(tmp_path, LONG)
    keep(chosen, "BP", "mnist", DIP, [90.0] * 40, diverged=[False, True])
    found = built(chosen)
    assert found.frame()["diverged"].tolist() == [1]
    assert found.texts("BP", "mnist")[1] == "n=2, 1 diverged"


@pytest.mark.parametrize(
    ("epochs", "said"), [(40, "Late: the last 20 epochs,"), (20, "Late: all 20 epochs,"), (3, "Late: all 3 ")]
)
def test_which_epochs_are_late(tmp_path: Path, epochs: int, said: str) -> None:
    chosen = select(tmp_path, PLAN.replace("epochs: 1,", f"epochs: {epochs},"))
    assert said in built(chosen).note
    assert said in shown(chosen)


def test_the_drawing(chosen: Selection) -> None:
    found = built(chosen)
    drawn = panels(curves.draw(found, "mnist"))
    assert list(drawn) == ["BP", "[BP (as released)]"]
    *seeds, mean, paper = drawn["BP"].get_lines()
    assert [line.get_label() for line in seeds] == ["a seed", "_child1"]
    np.testing.assert_allclose(seeds[1].get_ydata(), np.array(FALLING) + 1)
    np.testing.assert_allclose(mean.get_ydata(), np.array(FALLING) + 0.5)
    assert list(mean.get_xdata()) == list(range(1, 41))
    assert set(paper.get_ydata()) == {1.85}
    assert drawn["BP"].get_yscale() == "log"
    assert len(drawn["[BP (as released)]"].get_lines()) == 3  # the paper has no such row
    assert drawn["BP"].get_ylim() == drawn["[BP (as released)]"].get_ylim()


def test_the_legend_names_what_is_drawn(chosen: Selection) -> None:
    found = built(chosen)
    for column, expected in (
        ("mnist", ["a seed", "mean over the seeds", "the paper's mean, last epoch"]),
        ("fashion-mnist-mini", ["a seed", "mean over the seeds"]),
    ):
        (legend,) = curves.draw(found, column).legends
        assert [text.get_text() for text in legend.get_texts()] == expected


def test_every_column_of_panels_has_its_epochs(tmp_path: Path) -> None:
    chosen = select(tmp_path, LONG)
    for row in ("BP", "BP (as released)", "DTP", "DRL", "L-DRL"):
        keep(chosen, row, "mnist", DIP, DIP)
    drawn = panels(curves.draw(built(chosen), "mnist"))
    labelled = [title for title, axes in drawn.items() if axes.get_xlabel() == "epoch"]
    assert labelled == ["[BP (as released)]", "DTP", "DRL", "L-DRL"]
    numbered = [t for t, axes in drawn.items() if any(l.get_visible() for l in axes.get_xticklabels())]
    assert numbered == labelled
    assert [title for title, axes in drawn.items() if axes.get_ylabel()] == ["BP", "L-DRL"]


@pytest.mark.parametrize(
    ("errors", "expected"), [([1.6, 90.0], {2, 5, 10, 20, 50}), ([45.0, 80.0], {50, 60, 70, 80})]
)
def test_the_error_has_ticks(tmp_path: Path, errors: list[float], expected: set[int]) -> None:
    chosen = select(tmp_path, PLAN.replace("epochs: 1,", "epochs: 2,"))
    keep(chosen, "BP", "fashion-mnist-mini", errors, errors)
    (axes,) = curves.draw(built(chosen), "fashion-mnist-mini").get_axes()
    low, high = axes.get_ylim()
    assert expected <= {tick for tick in axes.get_yticks() if low <= tick <= high}
    assert {str(tick) for tick in expected} <= {label.get_text() for label in axes.get_yticklabels()}


def test_zero_can_be_seen(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN.replace("epochs: 1,", "epochs: 3,"))
    for row, errors in (("BP", [5.0, 2.0, 1.0]), ("BP (as released)", [5.0, 1.0, 0.0])):
        keep(chosen, row, "mnist", errors, errors)
    drawn = panels(curves.draw(built(chosen), "mnist"))
    for axes in drawn.values():
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[0] < 0
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_what_the_title_says(chosen: Selection, tmp_path: Path) -> None:
    (title,) = curves.draw(built(chosen), "fashion-mnist-mini").texts
    assert title.get_text().splitlines() == [
        "[F-MNIST (mini)]: 40 epochs, seeds 1, 2",
        "1 of 2 rows not complete",
    ]
    longer = select(tmp_path, PLAN, epochs=3)
    keep(longer, "BP", "mnist", *[[3.0, 2.0, 1.0]] * 2)
    (title,) = curves.draw(built(longer), "mnist").texts
    assert title.get_text().splitlines()[1] == "NOT THE PAPER'S PROTOCOL: --epochs 3"
    assert "NOT THE PAPER'S PROTOCOL: --epochs 3" in shown(longer)


def test_what_is_not_comparable_says_so(tmp_path: Path) -> None:
    other = select(tmp_path, LONG.replace("comparable: true", "comparable: false"))
    keep(other, "BP", "mnist", DIP, DIP)
    canvas = curves.draw(built(other), "mnist")
    assert NOT_COMPARABLE.split(":")[0] in [text.get_text() for text in canvas.texts]
    assert len(canvas.get_axes()[0].get_lines()) == 3  # and the paper's mean is not there
    markdown, *_ = curves.write(built(other), tmp_path / "tables", tmp_path / "figures")
    assert f"**{NOT_COMPARABLE}**" in markdown.read_text()


def test_files_are_rebuilt_byte_for_byte(chosen: Selection, tmp_path: Path) -> None:
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        files = curves.write(built(chosen), folder / "tables", folder / "figures")
        written.append([file.read_bytes() for file in files])
        name = chosen.plan.guest
        assert [file.name for file in files] == [
            f"curves-{name}.md", f"curves-{name}.csv",
            f"curves-mnist-{name}.png", f"curves-mnist-{name}.pdf",
            f"curves-fashion-mnist-mini-{name}.png", f"curves-fashion-mnist-mini-{name}.pdf",
        ]  # fmt: skip
    assert written[0] == written[1]
    assert pd.read_csv(StringIO(written[0][1].decode()))["epoch 40"].tolist() == [10.75, 12.0, 10.25]


def test_nothing_stored(tmp_path: Path) -> None:
    chosen = select(tmp_path, LONG)
    assert curves.write(built(chosen), tmp_path / "tables", tmp_path / "figures") == []
    assert not (tmp_path / "tables").exists()
    assert re.search("--dataset mnist,fashion-mnist-mini .*` trains what is not stored", shown(chosen))


def test_the_page_has_an_exhibit_a_data_set(chosen: Selection) -> None:
    files, shown = contents.report_curves(chosen, Console(file=StringIO()))
    exhibits = shown()
    assert [exhibit.anchor for exhibit in exhibits] == ["curves-mnist", "curves-fashion-mnist-mini"]
    mnist, mini = exhibits
    assert mnist.table is not None
    assert [row.cells[0].text for row in mnist.table.rows] == ["BP", "[BP (as released)]"]
    assert [figure.png for figure in mini.figures] == [
        file.read_bytes() for file in files if "mini" in file.name and file.suffix == ".png"
    ]
    assert len(mnist.figures) == 1
    assert len(mini.missing) == 1
