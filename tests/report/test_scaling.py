"""The scaling figure from made-up measurements."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.report import scaling
from benchmark.studies.timing import costs
from benchmark.studies.timing import points as timing_points
from benchmark.studies.timing.costs import Cost
from benchmark.sweep.selection import Selection

DEVICE = "Some CPU, 2 threads"


def select(folder: Path, plan: str = "table2") -> Selection:
    return Selection(plan, folder)


def made_up(chosen: Selection, **changes: Any) -> list[Cost]:
    """Costs as if a replica took 2 s an epoch, 4 s alone; one seed at a time 18 s, as released 26 s."""
    seconds = {"replica axis": 2.0, "compiled": 1.0, "eager": 18.0, "eager as released": 26.0}
    found = []
    for point in timing_points.study_points(chosen.plan):
        cost = Cost.of(
            point.run, point.implementation, samples=60_000, device=torch.device("cpu"), began="today"
        )
        numbers = {
            "seconds_per_epoch": seconds[cost.implementation] * (2 if alone(cost) else cost.replicas),
            "std": 0.1,
            "spread": 0.1,
            "blocks": 4,
            "iterations": 3,
            "matmul_gflops": 400.0,
            "bandwidth_gbs": 10.0,
            "gbytes": 0.01 * cost.replicas,
            "peak_gib": 0.1 * cost.replicas,
            "device": DEVICE,
            **changes,
        }
        found.append(cost.model_copy(update=numbers))
    return found


def alone(cost: Cost) -> bool:
    return (cost.implementation, cost.replicas) == ("replica axis", 1)


def store(chosen: Selection, measured: list[Cost]) -> Path:
    file = costs.file_of(chosen.root, "study", measured[0].device)
    file.parent.mkdir(parents=True, exist_ok=True)
    costs.write(measured, file)
    return file


def shown(figure: scaling.Scaling) -> str:
    console = Console(width=250, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    scaling.show(figure, console)
    return console.export_text()


def test_lines(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, made_up(chosen))
    figure = scaling.build(chosen.plan, chosen.store)
    assert figure.base == {"replicas": 5, "width": 256, "hidden_layers": 6, "feedback_updates": 5}
    for method in timing_points.ROWS:
        for axis, values in timing_points.AXES.items():
            line = figure.line(DEVICE, method, axis)
            learns = method in ("DTP", "DRL", "L-DRL")
            expected = values if learns or axis != "feedback_updates" else ()
            assert tuple(getattr(cost, axis) for cost in line) == expected
            assert all(cost.implementation == "replica axis" for cost in line)
            if axis != "replicas":
                assert all(cost.replicas == 5 for cost in line)
    assert list(figure.missing()) == []
    assert {cost.peak_gib for cost in figure.compiled(DEVICE)} == {None}
    assert list(figure.gains(DEVICE)) == [
        f"{method}: 5 seeds side by side{how} are {gain} times faster than one at a time ({baseline}){parts}"
        for method in ("FW-DTP", "DTP")
        for baseline, together, compiled, code in (
            ("eager", 9.0, 18.0, 4.5),
            ("eager as released", 13.0, 26.0, 6.5),
        )
        for how, gain, parts in (
            ("", together, f": {code} times by this code, 2.0 times by being side by side"),
            (", compiled,", compiled, ""),
        )
    ]
    text = shown(figure)
    assert "FW-DTP: 5 seeds side by side are 9.0 times faster than one at a time (eager)" in text
    assert re.search(r"│ DRL +│ hidden width +│ 512 +│ 2\.00 +│ \d+% +│ 0\.500 +│", text)


def test_a_gain_is_measured_in_one_run(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    measured = [
        cost.model_copy(update={"measured": "yesterday"}) if cost.implementation == "eager" else cost
        for cost in made_up(chosen)
    ]
    store(chosen, measured)
    figure = scaling.build(chosen.plan, chosen.store)
    gains = list(figure.gains(DEVICE))
    assert len(gains) == 4
    assert all("(eager as released)" in gain for gain in gains)


def test_files_are_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, made_up(chosen))
    written = []
    for folder in ("first", "second"):
        files = scaling.write(scaling.build(chosen.plan, chosen.store), tmp_path / folder)
        assert [file.name for file in files] == ["scaling.png", "scaling.pdf", "scaling.csv"]
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]
    _, pdf, csv = written[0]
    assert b"/CreationDate" not in pdf
    assert b"/FontFile2" in pdf  # embedded as TrueType
    assert b"/Type3" not in pdf
    table = pd.read_csv(tmp_path / "first" / "scaling.csv")
    assert list(table.columns) == list(costs.COLUMNS)
    assert len(table) == len(made_up(chosen))
    assert csv


def test_the_drawing(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, made_up(chosen))
    store(chosen, made_up(chosen, device="Fast GPU"))
    figure = scaling.draw(scaling.build(chosen.plan, chosen.store))
    panels = figure.get_axes()
    assert len(panels) == 2 * 3 * 4
    assert [axes.get_xlabel() for axes in panels[:4]] == list(scaling.LABELS.values())
    assert [axes.get_title(loc="left") for axes in panels if axes.get_title(loc="left")] == [
        "Fast GPU",
        DEVICE,
    ]
    time = panels[0]
    dashed = [line for line in time.get_lines() if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert len(dashed) == len(timing_points.ROWS)
    (fw_dtp,) = (
        c
        for c in made_up(chosen)
        if (c.method, c.dims, c.replicas, c.implementation)
        == ("FW-DTP", [784, *[256] * 6, 10], 5, "replica axis")
    )
    assert fw_dtp.multiply_adds
    bound = 2e-9 * fw_dtp.multiply_adds * 60_000 / 400  # products, the slower of the two
    assert dashed[0].get_ydata()[1] == pytest.approx(bound, rel=1e-4)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    apart = ["compiled", "one seed, eager", "one seed, eager as released"]
    assert labels == [*timing_points.ROWS, "bound", *apart]
    (title,) = figure.texts
    assert title.get_text().startswith("Cost on the MNIST network: 6 x 256, 5 replicas, 5 feedback updates")


def test_quick_is_watermarked(tmp_path: Path) -> None:
    chosen = select(tmp_path, "quick")
    store(chosen, made_up(chosen))
    figure = scaling.build(chosen.plan, chosen.store)
    _, mark = scaling.draw(figure).texts
    assert mark.get_text() == "NOT COMPARABLE WITH THE PAPER"
    assert "NOT COMPARABLE WITH THE PAPER" in shown(figure)


def test_nothing_measured(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    figure = scaling.build(chosen.plan, chosen.store)
    assert scaling.write(figure, tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()
    assert "missing: no device was measured yet: python -m benchmark.timing --study" in shown(figure)


def test_part_measured(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    measured = [
        cost.model_copy(update={"seconds_per_epoch": None, "skipped": "needs about 9.0 GiB, 6.0 GiB allowed"})
        if cost.replicas == 100
        else cost
        for cost in made_up(chosen)
        if cost.method != "DTP" and cost.width != 64
    ]
    store(chosen, measured)
    figure = scaling.build(chosen.plan, chosen.store)
    said = [what for what, _ in figure.missing()]
    assert any("DTP with replicas 1, 5, 20, 100 on Some CPU" in line for line in said)
    assert any("BP with hidden width 64 on Some CPU" in line for line in said)
    assert any("the eager baseline of DTP on Some CPU" in line for line in said)
    assert not any("BP" in line and "replicas" in line for line in said), "no command fills what is skipped"
    reason = "BP, 6 x 256, 0 feedback updates, 100 replicas: needs about 9.0 GiB, 6.0 GiB allowed"
    assert reason in list(figure.skipped(DEVICE))
    assert f"skipped: {reason}" in shown(figure)
    assert len(scaling.write(figure, tmp_path / "figures")) == 3


@pytest.mark.parametrize(
    "lost", [{"peak_gib": None}, {"seconds_per_epoch": None, "peak_gib": None, "skipped": "too large"}]
)
def test_a_quantity_of_which_there_is_nothing(tmp_path: Path, lost: dict[str, Any]) -> None:
    """Memory that the system does not tell, or nothing but what was skipped."""
    chosen = select(tmp_path)
    store(chosen, made_up(chosen, **lost))
    assert len(scaling.write(scaling.build(chosen.plan, chosen.store), tmp_path / "figures")) == 3


def test_damage_is_named(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    file = store(chosen, made_up(chosen))
    file.write_text(file.read_text().replace("FW-DTP,eager,", "FW-DTP,lazy,"))
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}, line 2: implementation"):
        scaling.build(chosen.plan, chosen.store)
