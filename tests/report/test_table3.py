"""Table 3 from made-up costs and a made-up store."""

import math
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.config import load_paper_values
from benchmark.report import table3
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.studies.timing import costs
from benchmark.studies.timing import points as timing_points
from benchmark.studies.timing.costs import Cost
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import record_of

PAPER = load_paper_values()
SECONDS = {"FW-DTP": 2.0, "DTP": 8.0, "DRL": 10.0, "L-DRL": 9.0, "BP": 1.0}


def select(folder: Path, plan: str = "table2") -> Selection:
    return Selection(plan, folder)


def made_up(chosen: Selection, seconds: Mapping[str, float] = SECONDS, **changes: Any) -> list[Cost]:
    """Costs as if so many seconds had been measured; five replicas take 2.5 times, a hundred 40 times one."""
    found = []
    for point in timing_points.table3_points(chosen.plan):
        cost = Cost.of(point.run, "replica axis", samples=50_000, device=torch.device("cpu"), began="today")
        alone = seconds[cost.method]
        numbers = {
            "seconds_per_epoch": alone * {1: 1.0, 5: 2.5, 20: 8.0, 100: 40.0}[cost.replicas],
            "std": alone / 10,
            "spread": alone / 8,
            "blocks": 4,
            "iterations": 3,
            "matmul_gflops": 100.0,
            "bandwidth_gbs": 10.0,
            "gbytes": 0.1,
            "device": "Some CPU, 2 threads",
            "commit": "0123456789abcdef0123456789abcdef01234567+changes",
            "torch_version": "2.0",
            **changes,
        }
        found.append(cost.model_copy(update=numbers))
    return found


def store(chosen: Selection, measured: list[Cost]) -> Path:
    file = costs.file_of(chosen.root, measured[0].device)
    file.parent.mkdir(parents=True, exist_ok=True)
    costs.write(measured, file)
    return file


def train(chosen: Selection, row: str, column: str, errors: list[float]) -> None:
    """Store made-up errors of a run."""
    run = chosen.plan.run(row, column)
    assert run is not None
    rows = [
        [epoch, seed, 0.5, error, False]
        for epoch in range(1, run.epochs + 1)
        for seed, error in zip(run.seeds, errors, strict=True)
    ]
    chosen.store.commit(row, record_of(run), pd.DataFrame(rows, columns=list(EPOCH_COLUMNS)))


def rendered(chosen: Selection) -> dict[str, bytes]:
    table = table3.build(chosen.plan, chosen.store, PAPER)
    return {file.name: file.read_bytes() for file in table3.write(table, chosen.root / "tables")}


def test_numbers(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, made_up(chosen))
    table = table3.build(chosen.plan, chosen.store, PAPER)
    frame = table.frame().set_index("method")
    assert list(frame.index) == list(SECONDS)
    assert frame["seconds"].to_dict() == SECONDS
    assert frame["ratio"].tolist() == [1.0, 4.0, 5.0, 4.5, 0.5]
    # Ten per cent on both sides, except that a method's ratio to itself is exact.
    assert frame["ratio_std"].tolist() == pytest.approx(
        [0.0, *(r * 0.1 * math.sqrt(2) for r in (4, 5, 4.5, 0.5))]
    )
    assert frame["seconds_of_5"].tolist() == [1.0, 4.0, 5.0, 4.5, 0.5]
    assert frame["seconds_of_100"].tolist() == pytest.approx([0.8, 3.2, 4.0, 3.6, 0.4])
    # 3072-1024-1024-1024-10; all but the first: 2 * 1024^2 + 10240. By hand from `methods.md`.
    rest = 2 * 1024**2 + 10240
    forward = 3072 * 1024 + rest
    fixed = 2 * forward + 2 * rest
    assert frame["predicted_ratio"].tolist()[:2] == pytest.approx([1.0, (fixed + 15 * rest) / fixed])
    assert frame["predicted_ratio"]["BP"] == pytest.approx((2 * forward + rest) / fixed)
    assert frame["paper_seconds"].tolist() == [2.22, 8.32, 9.52, 8.86, 0.76]
    assert frame["paper_ratio"].tolist() == [1.00, 3.74, 4.29, 3.99, 0.34]
    assert frame["paper_error_std"]["BP"] == 1.15


def test_files(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    file = store(chosen, made_up(chosen))
    first = rendered(chosen)
    assert sorted(first) == ["table3.csv", "table3.md", "table3.tex"]
    assert rendered(chosen) == first
    costs.write(costs.read(file), file)  # what is read is what was written
    assert rendered(chosen) == first
    markdown = first["table3.md"].decode()
    assert "# Table 3: cost on CIFAR-10, 3 x 1024, minibatch 256, 5 feedback updates" in markdown
    assert "## Some CPU, 2 threads" in markdown
    assert "torch 2.0, commit 0123456789ab+changes, today" in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| DTP |"))
    assert "| 8.00 ± 0.80 | 4 x 3 iterations | 4.00 ± 0.57 | 3.15 | 4.00 | 3.20 | 8.32 ± 0.36 |" in row
    assert "random" in markdown
    latex = first["table3.tex"].decode()
    assert r"DTP & 8.00 $\pm$ 0.80" in latex
    body = re.search(r"\\midrule\n(.*)\\bottomrule", latex, re.S)
    assert body
    (columns,) = {line.count("&") for line in body[1].splitlines()}
    assert f"{{l{'r' * columns}}}" in latex


def test_one_section_a_device(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, made_up(chosen))
    store(chosen, made_up(chosen, {name: s / 100 for name, s in SECONDS.items()}, device="Fast GPU"))
    table = table3.build(chosen.plan, chosen.store, PAPER)
    assert list(table.devices) == ["Fast GPU", "Some CPU, 2 threads"]
    markdown = rendered(chosen)["table3.md"].decode()
    assert markdown.count("\n| FW-DTP | ") == 2
    assert re.search(r"\| FW-DTP \| 0\.0200 ± 0\.\d{4} \|", markdown)


def test_errors_come_from_table_2(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, made_up(chosen))
    empty = rendered(chosen)["table3.md"].decode()
    assert (
        "- error of BP on cifar-10: `python -m benchmark run table2 --method BP --dataset cifar-10" in empty
    )
    train(chosen, "BP", "cifar-10", [45.0, 46.0, 47.0, 48.0, 49.0])
    assert "| 47.00 ± 1.58 (n=5) | 46.16 ± 1.15 |" in rendered(chosen)["table3.md"].decode()


def test_nothing_measured(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    table = table3.build(chosen.plan, chosen.store, PAPER)
    assert table.frame().empty
    said = list(table.missing())
    command = "python -m benchmark.timing --table3"
    assert said[0] == ("no device was measured yet", f"{command} --results {tmp_path}")
    files = rendered(chosen)
    assert f"`{command}" in files["table3.md"].decode()
    assert "±" not in files["table3.md"].decode().split("Missing")[1]
    assert pd.read_csv(BytesIO(files["table3.csv"])).empty
    assert command in files["table3.tex"].decode()


def test_part_measured(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    skipped = {"seconds_per_epoch": None, "std": None, "blocks": None, "iterations": None}
    measured = [
        cost.model_copy(update={**skipped, "skipped": "needs about 9.0 GiB, 6.0 GiB allowed"})
        if cost.replicas == 100
        else cost
        for cost in made_up(chosen)
        if cost.method != "FW-DTP"
    ]
    store(chosen, measured)
    table = table3.build(chosen.plan, chosen.store, PAPER)
    assert table.frame()["ratio"].isna().all()
    assert table.frame()["seconds_of_100"].isna().all()
    console = Console(width=250, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table3.show(table, console)
    text = console.export_text()
    assert "skipped: DTP with 100 replicas: needs about 9.0 GiB" in text
    assert "missing: FW-DTP with 1, 5, 100 replicas on Some CPU" in text
    (line,) = [line for line in text.splitlines() if line.startswith("│ FW-DTP")]
    assert [cell.strip() for cell in line.strip("│").split("│")][1:4] == ["-", "-", "-"]
    assert "skipped: BP with 100 replicas" in rendered(chosen)["table3.md"].decode()


def test_quick_stands_beside_nothing(tmp_path: Path) -> None:
    chosen = select(tmp_path, "quick")
    store(chosen, made_up(chosen))
    markdown = rendered(chosen)["table3.md"].decode()
    assert "NOT COMPARABLE WITH THE PAPER" in markdown
    assert "paper:" not in markdown
    assert "x 20" in markdown
    assert "8.32" not in markdown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 512}, "DTP was measured on another network"),
        ({"feedback_updates": 4}, "DTP was measured on another network"),
        ({"batch_size": 128}, "DTP was measured on another network"),
        ({"method": "BP"}, "BP was measured twice"),
        ({"method": "DTP (half size)"}, r"DTP \(half size\) was measured on another network"),
    ],
    ids=str,
)
def test_other_measurements_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    chosen = select(tmp_path)
    updates = [{"batch_size": 256, **change}] if "width" not in change else [change]
    if change.get("method") == "BP":
        updates[0] |= {"feedback_updates": 0}
    measured = [
        cost.model_copy(update=updates[0]) if (cost.method, cost.replicas) == ("DTP", 5) else cost
        for cost in made_up(chosen)
    ]
    store(chosen, measured)
    with pytest.raises(UserError, match=message):
        table3.build(chosen.plan, chosen.store, PAPER)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("DTP,replica axis", "DTP,magic"), "line 2: implementation"),
        (lambda text: text.replace(",1,50000,", ",one,50000,"), "line 2: replicas"),
        (lambda text: text.replace(",1,50000,", ",,50000,"), "line 2: replicas: Field required"),
        (lambda text: text.replace("skipped", "left out"), "line 2: no value for"),
        (lambda text: text[:-40] + "\n", "line 16: no value for"),
        (lambda text: text.splitlines()[0] + "\n", "holds no measurement; restore it, or delete it"),
        (lambda text: text.replace(",1,50000,", ",1,-50000,"), "line 2: samples: '-50000' found"),
        (lambda text: text.replace("Some CPU", "Other CPU", 1), "measurements of one device expected"),
        (lambda text: "\0", r"cannot be read|holds no measurement"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Any, message: str) -> None:
    chosen = select(tmp_path)
    file = store(chosen, made_up(chosen))
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError, match=f"{re.escape(str(file))}.*({message})"):
        table3.build(chosen.plan, chosen.store, PAPER)


@pytest.mark.parametrize("column", ["seconds_per_epoch", "std", "matmul_gflops"])
@pytest.mark.parametrize("value", ["-5.0", "nan", "inf"])
def test_times_that_cannot_be_are_refused(tmp_path: Path, column: str, value: str) -> None:
    chosen = select(tmp_path)
    file = store(chosen, made_up(chosen))
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match=f"line 2: {column}: '{value}' found: Input should be"):
        table3.build(chosen.plan, chosen.store, PAPER)


def test_timing_in_place_of_a_folder_is_not_no_timing(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    chosen.root.mkdir(parents=True, exist_ok=True)
    (chosen.root / "timing").write_text("in the way")
    with pytest.raises(UserError, match="timing: Not a directory; a readable folder"):
        table3.build(chosen.plan, chosen.store, PAPER)


def test_one_device_in_two_files(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    file = store(chosen, made_up(chosen))
    file.with_name("table3-copy.csv").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="was measured in another file, too"):
        table3.build(chosen.plan, chosen.store, PAPER)
