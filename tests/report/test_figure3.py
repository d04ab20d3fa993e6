"""Figure 3 on studies made up for the purpose, statistics compared with values worked out by hand."""

import io
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from optuna.trial import TrialState, create_trial
from PIL import Image
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.report import contents, figure3
from benchmark.report.figure3 import Figure3
from benchmark.report.html import Exhibit
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity import design as sensitivity_design
from benchmark.studies.sensitivity.samples import FEWEST
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import fill_study

METHODS = ["DTP", "FW-DTP"]


def select(folder: Path, plan: str = "table2") -> Selection:
    return Selection(plan, folder / "results")


def build(chosen: Selection, **options: Any) -> Figure3:
    return figure3.build(chosen.plan, chosen.store, **options)


def written(figure: Figure3, folder: Path) -> dict[str, bytes]:
    files = figure3.write(figure, folder / "figures", folder / "tables")
    return {file.name: file.read_bytes() for file in files}


def test_statistics_by_hand(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [10.0, 20.0, 48.0, 50.0], diverged=[0])
    fill_study(chosen, "FW-DTP", [49.0, 50.0, 50.5, 51.0, 42.9])
    figure = build(chosen, trials=5)
    dtp, fw = figure.samples
    assert dtp.quartiles == (17.5, 34.0, 48.5)
    assert dtp.near_best == 0.5
    assert fw.quartiles == (49.0, 50.0, 50.5)
    assert fw.near_best == 0.8
    table = figure.frame().set_index("method")
    assert table.loc["DTP", ["n", "of", "diverged", "best", "worst"]].tolist() == [4, 5, 1, 50.0, 10.0]
    assert table["iqr"].tolist() == [31.0, 1.5]
    assert table["median"].tolist() == [34.0, 50.0]
    text = figure3._markdown(figure)
    assert "| DTP | 4 of 5, 1 diverged | 50.00 | 34.00 | 31.00 (17.50 to 48.50) | 50% | - | - |" in text
    assert "| FW-DTP | 5 of 5 | 51.00 | 50.00 | 1.50 (49.00 to 50.50) | 80% | - | - |" in text
    assert table["shortfall"].isna().all()


def test_shortfall_of_enough_configurations(tmp_path: Path) -> None:
    """Of 0, 1, ..., 20 in any order: 19 is what one in twenty reaches, 10 the mean."""
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", np.random.default_rng(2).permutation(21.0 + np.arange(21)).tolist())
    figure = build(chosen, trials=21)
    line = figure.frame().set_index("method").loc["DTP"]
    assert line["shortfall"] == 9.0
    assert 4 < line["shortfall_low"] < 9 < line["shortfall_high"] < 14
    assert f"9.00 [{line['shortfall_low']:.2f}, {line['shortfall_high']:.2f}]" in figure3._markdown(figure)


@pytest.mark.parametrize("accuracies", [[], [50.0], [10.0] * 10], ids=len)
def test_accuracies_that_do_not_tell(tmp_path: Path, accuracies: list[float]) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "FW-DTP", accuracies)
    figure = build(chosen)
    assert figure.samples[1].importances == {}
    line = next(line for line in figure3._markdown(figure).splitlines() if line.startswith("| FW-DTP"))
    assert line.startswith(f"| FW-DTP | {len(accuracies)} of 100 | ")
    short = "0.00 [0.00, 0.00]" if len(accuracies) == 10 else "-"
    assert line.endswith(f"% | {short} | - |" if accuracies else "| - | - | - | - | - | - |")
    assert "nan" not in line
    for draw in (figure3._histogram, figure3._cumulative):
        axes, _ = axes_of(figure, draw)
        assert [text.get_text() for text in axes.texts] == ([] if accuracies else ["no configuration stored"])


def test_nothing_stored_is_said_and_nothing_made(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    figure = build(chosen)
    assert not chosen.root.exists()
    assert [len(sample.trials) for sample in figure.samples] == [0, 0]
    text = figure3._markdown(figure)
    assert "| DTP | 0 of 100 | - | - | - | - | - |" in text
    for row in METHODS:
        command = f"python -m benchmark.sensitivity --method {row} --dataset cifar-10 --results "
        assert f"- `{command}{tmp_path / 'results'}`" in text


def test_missing_trials_are_said(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    study = fill_study(chosen, "DTP", [40.0, 45.0])
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"index": 2}))
    fill_study(chosen, "FW-DTP", [40.0, 45.0, 50.0])
    figure = build(chosen, trials=3)
    assert [figure.label(sample) for sample in figure.samples] == ["DTP (2 of 3)", "FW-DTP (n=3)"]
    (command,) = figure.missing()
    assert shlex.split(command)[3:9] == ["--method", "DTP", "--dataset", "cifar-10", "--trials", "3"]
    console = Console(width=200, record=True, file=io.StringIO())
    figure3.show(figure, console)
    shown = console.export_text()
    assert "2 of 3" in shown
    assert command in shown


def test_files_are_the_same_bytes_again(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row in METHODS:
        fill_study(chosen, row, [40.0, 45.5, 51.0, 20.0])
    first = written(build(chosen, trials=4), tmp_path / "a")
    assert first == written(build(chosen, trials=4), tmp_path / "b")
    name = "figure3-4-trials"
    drawn = {f"{name}{kind}.{suffix}" for kind in ("", "-ecdf") for suffix in ("png", "pdf")}
    tables = {f"{name}.md", f"{name}.csv", f"{name}.tex", f"{name}-configurations.csv"}
    assert set(first) == drawn | tables
    with Image.open(tmp_path / "a" / "figures" / f"{name}.png") as image:
        assert round(image.info["dpi"][0]) == 200
    pdf = first[f"{name}.pdf"]
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_every_trial_is_in_the_csv(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [100 - 57.1, 10.0], diverged=[1])
    fill_study(chosen, "FW-DTP", [51.0])
    figure = build(chosen, trials=2)
    written(figure, tmp_path)
    table = pd.read_csv(tmp_path / "tables" / "figure3-2-trials-configurations.csv")
    assert list(table["method"]) == ["DTP", "DTP", "FW-DTP"]
    assert list(table["accuracy"]) == [42.9, 10.0, 51.0]
    assert list(table["diverged"]) == [False, True, False]
    (made, _) = sensitivity_design.designs(chosen.plan, METHODS, "cifar-10")
    drawn = table.loc[1, list(made.centre)].to_dict()
    assert drawn == pytest.approx(made.configuration(1), rel=1e-12)
    assert pd.isna(table.loc[2, "noise_std"])


def axes_of(figure: Figure3, draw: Any) -> Any:
    canvas: Canvas = figure3._drawn(figure, draw)
    return canvas.axes[0], " ".join(text.get_text() for text in canvas.texts)


def test_histogram_is_laid_out_as_in_the_paper(tmp_path: Path) -> None:
    """Test accuracy on x, counts on y, both methods, the same bins."""
    chosen = select(tmp_path)
    found = {"DTP": [10.0, 31.0, 31.5, 44.1], "FW-DTP": [44.0, 48.2, 49.9, 49.0]}
    for row, accuracies in found.items():
        fill_study(chosen, row, accuracies)
    axes, marks = axes_of(build(chosen), figure3._histogram)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("test accuracy (%)", "count")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "DTP (4 of 100)",
        "FW-DTP (4 of 100)",
    ]
    assert axes.get_title() == "CIFAR-10, 100 epochs"
    assert marks == ""
    # seaborn draws the methods in reverse
    bars = {
        row: {round(bar.get_x(), 6): bar.get_height() for bar in container if bar.get_height()}
        for row, container in zip(reversed(METHODS), axes.containers, strict=True)
    }
    assert bars == {"DTP": {10.0: 1, 30.0: 2, 44.0: 1}, "FW-DTP": {44.0: 1, 48.0: 3}}
    edges = [[round(bar.get_x(), 6) for bar in container] for container in axes.containers]
    assert edges[0] == edges[1]
    assert {round(bar.get_width(), 6) for container in axes.containers for bar in container} == {2.0}


def test_cumulative_distribution(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row, accuracies in {"DTP": [10.0, 31.0], "FW-DTP": [44.0, 48.0, 49.0, 50.0]}.items():
        fill_study(chosen, row, accuracies)
    axes, _ = axes_of(build(chosen), figure3._cumulative)
    curves = [line for line in axes.lines if len(line.get_xdata())]
    ends = sorted((tuple(line.get_xdata()[1:]), tuple(line.get_ydata()[1:])) for line in curves)
    assert ends == [((10.0, 31.0), (0.5, 1.0)), ((44.0, 48.0, 49.0, 50.0), (0.25, 0.5, 0.75, 1.0))]


def test_quick_is_watermarked(tmp_path: Path) -> None:
    chosen = select(tmp_path, "quick")
    fill_study(chosen, "DTP", [40.0])
    figure = build(chosen)
    assert (figure.column, figure.epochs, figure.name) == ("fashion-mnist-mini", 2, "figure3")
    _, marks = axes_of(figure, figure3._histogram)
    assert marks == "NOT COMPARABLE WITH THE PAPER"
    for text in (figure3._markdown(figure), figure3._latex(figure)):
        assert "NOT COMPARABLE WITH THE PAPER" in text
    assert "--profile quick" in figure.missing()[0]


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({"column": "fashion-mnist"}, "figure3-fashion-mnist", "another data set"),
        ({"epochs": 10}, "figure3-10-epochs", "10 epochs instead of 100"),
        ({"trials": 10}, "figure3-10-trials", "10 configurations instead of 100"),
        ({"rows": ["DTP", "DRL"]}, "figure3-dtp-drl", "other methods"),
        ({"seed": 7}, "figure3-seed-7", None),
        ({}, "figure3", None),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_another_study_has_another_name_and_says_so(
    tmp_path: Path, options: dict[str, Any], name: str, reason: str | None
) -> None:
    figure = build(select(tmp_path), **options)
    assert figure.name == name
    expected = None if reason is None else f"NOT THE PAPER'S FIGURE 3: {reason}"
    assert figure.warning == expected
    for row, command in zip(options.get("rows", METHODS), figure.missing(), strict=True):
        words = shlex.split(command)
        assert words[words.index("--method") + 1] == row
        for option in ("epochs", "trials", "seed"):
            given = words[words.index(f"--{option}") + 1] if f"--{option}" in words else None
            assert given == (str(options[option]) if option in options else None)
    if reason and "column" in options:
        assert "F-MNIST" in figure.heading
        axes, _ = axes_of(figure, figure3._histogram)
        assert re.sub(r"\s+", " ", axes.get_title()) == f"F-MNIST, 100 epochs {expected}"


def test_a_study_of_another_plan_is_refused(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    study = fill_study(chosen, "DTP", [40.0])
    study.set_user_attr("design", {**study.user_attrs["design"], "factor": 4.0})
    with pytest.raises(UserError, match=r"was made with factor 4\.0 instead of 5\.0"):
        build(chosen)


def exhibited(chosen: Selection) -> tuple[list[Exhibit], list[str], str]:
    """The exhibits, the Markdown files behind them, and what is printed."""
    console = Console(width=250, record=True, file=io.StringIO())
    files, shown = contents.report_figure3(chosen, console)
    exhibits = shown()
    return exhibits, [file.stem for file in files if file.suffix == ".md"], console.export_text()


def test_every_study_of_the_store_is_drawn(tmp_path: Path) -> None:
    """Those of other data sets, lengths, seeds and methods, behind the plan's own."""
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [40.0, 41.0])
    for row in METHODS:
        fill_study(chosen, row, [80.0, 81.0, 82.0], column="fashion-mnist", epochs=3)
    fill_study(chosen, "DRL", [50.0], seed=7)
    storage = optuna.storages.RDBStorage(sensitivity_design.default_storage(chosen.store))
    for name in (
        "somebody else's",
        "sensitivity DTP mars 3 epochs seed 1",
        "sensitivity XTP mnist 3 epochs seed 1",
    ):
        optuna.create_study(storage=storage, study_name=name).set_user_attr("design", "latin hypercube")
    exhibits, files, text = exhibited(chosen)
    assert [(exhibit.title, exhibit.anchor) for exhibit in exhibits] == [
        ("Figure 3", "figure-3"),
        ("Figure 3 (DRL, seed 7)", "figure-3-drl-seed-7"),
        ("Figure 3 (F-MNIST, 3 epochs)", "figure-3-f-mnist-3-epochs"),
    ]
    assert files == ["figure3", "figure3-drl-seed-7", "figure3-fashion-mnist-3-epochs"]
    assert "seed 7" in exhibits[1].caption
    assert [exhibit.warning for exhibit in exhibits] == [
        None,
        "NOT THE PAPER'S FIGURE 3: other methods",
        "NOT THE PAPER'S FIGURE 3: another data set, 3 epochs instead of 100",
    ]
    assert "3 of 100" in (tmp_path / "results/tables/figure3-fashion-mnist-3-epochs.md").read_text()
    assert "Left out" not in text


def test_a_method_beside_the_papers_two_has_a_figure_of_its_own(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row in (*METHODS, "DRL"):
        fill_study(chosen, row, [40.0, 41.0])
    _, files, _ = exhibited(chosen)
    assert files == ["figure3", "figure3-dtp-drl-fw-dtp"]
    for row in (*METHODS, "DRL"):
        fill_study(chosen, row, [40.0, 41.0], column="mnist")
    assert exhibited(chosen)[1] == [*files, "figure3-mnist", "figure3-dtp-drl-fw-dtp-mnist"]


def test_configurations_that_were_asked_for_are_counted(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [40.0, 41.0], column="mnist").set_user_attr("trials", 3)
    exhibits, files, _ = exhibited(chosen)
    assert files[1] == "figure3-mnist-3-trials"
    assert exhibits[1].table is not None
    assert exhibits[1].table.rows[0].cells[1].text == "2 of 3"


def test_a_study_of_the_plan_as_it_was_is_left_out(tmp_path: Path) -> None:
    """And no other one with it."""
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [90.0], column="mnist", epochs=5)
    stale = fill_study(chosen, "FW-DTP", [90.0], column="mnist", epochs=5)
    stale.set_user_attr("design", {**stale.user_attrs["design"], "factor": 4.0})
    exhibits, files, text = exhibited(chosen)
    assert files == ["figure3", "figure3-dtp-mnist-5-epochs"]
    said = "Left out: the study 'sensitivity FW-DTP mnist 5 epochs seed 1' was made with factor 4.0"
    assert said in text
    assert all(said in exhibit.notes[-1] for exhibit in exhibits)


def test_a_plan_without_the_papers_figure_shows_what_it_has(tmp_path: Path) -> None:
    shipped = select(tmp_path)
    config = shipped.plan.config
    rows = dict(config.rows)
    rows["FW-DTP"] = rows["FW-DTP"].model_copy(update={"hyperparameters": {}})
    plan = replace(shipped.plan, config=config.model_copy(update={"rows": rows}))
    chosen = select(tmp_path)
    chosen.plan = plan
    assert "figure3" not in contents.available(chosen)
    fill_study(chosen, "DTP", [90.0], column="mnist", epochs=5)
    assert "figure3" in contents.available(chosen)
    assert exhibited(chosen)[1] == ["figure3-dtp-mnist-5-epochs"]


def test_table3_does_not_ask_a_broken_database(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    (tmp_path / "results").mkdir(exist_ok=True)
    (chosen.root / "sensitivity.db").write_bytes(b"no database" * 100)
    assert contents.is_available("table3", chosen)
    with pytest.raises(UserError, match=r"sensitivity\.db"):
        contents.report_figure3(chosen, Console())


def test_another_storage(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    elsewhere = optuna_storage.sqlite_url(tmp_path / "elsewhere.db")
    fill_study(chosen, "DTP", [40.0], storage=elsewhere)
    figure = build(chosen, storage=elsewhere)
    assert [len(sample.trials) for sample in figure.samples] == [1, 0]
    assert all("--storage URL" in command for command in figure.missing())
    assert "elsewhere" not in "".join(figure.missing())
    assert [len(sample.trials) for sample in build(chosen).samples] == [0, 0]


def test_labels_are_escaped_for_latex(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [40.0 + index for index in range(FEWEST)])
    tex = figure3._latex(build(chosen))
    assert r"lr\_feedback" in tex
    assert r"\%" in tex
    assert tex.count(r"\toprule") == 1


def test_a_plan_without_cifar(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    config = chosen.plan.config
    only = config.model_copy(update={"columns": {"mnist": config.columns["mnist"]}})
    assert sensitivity_design.default_column(replace(chosen.plan, config=only)) == "mnist"
