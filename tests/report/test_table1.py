"""Table 1 from made-up measurements, and from a real run of the smallest size."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset, Split
from benchmark.engine.settings import MEASUREMENTS
from benchmark.report import table1
from benchmark.report.contents import report_table1
from benchmark.report.table1 import QUANTITIES, Table1
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.sweep.execute import execute
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import record_of

MINI = "fashion-mnist-mini"
LEARNED = "{lr: 1.0, stepsize: 0.1, lr_feedback: 0.1, noise_std: 0.1, source: guess}"
PLAN = f"""\
title: Tiny
comparable: true
protocol: {{epochs: 3, batch_size: 16, seeds: [1, 2, 3], source: guess}}
networks: {{2x4: {{hidden_layers: 2, width: 4, source: guess}}}}
columns: {{{MINI}: {{network: 2x4}}}}
measure: {{conditions: {{rows: [TP, DTP, DRL, L-DRL, FW-DTP], columns: [{MINI}]}}}}
rows:
  TP: {{method: TP, hyperparameters: {{{MINI}: &learned {LEARNED}}}}}
  DTP: {{method: DTP, hyperparameters: {{{MINI}: *learned}}}}
  DRL: {{method: DRL, hyperparameters: {{{MINI}: *learned}}}}
  L-DRL: {{method: L-DRL, hyperparameters: {{{MINI}: *learned}}}}
  FW-DTP: {{method: FW-DTP, hyperparameters: {{{MINI}: {{lr: 1.0, stepsize: 0.1, source: guess}}}}}}
"""
ROWS = ("TP", "DTP", "DRL", "L-DRL", "FW-DTP")


def select(folder: Path, plan: str = PLAN, epochs: int | None = None) -> Selection:
    file = folder / "tiny.yaml"
    file.write_text(plan)
    return Selection(str(file), folder / "results", epochs=epochs)


def store(chosen: Selection, row: str, checksum: str = "ab", nan: tuple[int, ...] = ()) -> None:
    """10 rows + quantity + encoder + seed; a hundred more after training. `nan`: seeds with none there."""
    run = chosen.plan.run(row, MINI)
    assert run is not None
    rows = []
    for epoch in (0, run.epochs):
        for seed in run.seeds:
            for number, quantity in enumerate(QUANTITIES):
                for l in (1, 2, 3) if quantity == "update_angle" else (2, 3):
                    base = 10 * ROWS.index(row) + number + l + seed + 100 * (epoch > 0)
                    rows.append(
                        [epoch, seed, l, quantity, np.nan if l == 3 and epoch and seed in nan else base]
                    )
    measured = pd.DataFrame(rows, columns=["epoch", "seed", *MEASUREMENTS["conditions"].columns])
    epochs = [[e, s, 1.0, 50.0, False] for e in range(1, run.epochs + 1) for s in run.seeds]
    record = record_of(run, checksum)
    chosen.store.commit(
        row, record, pd.DataFrame(epochs, columns=list(EPOCH_COLUMNS)), {"conditions": measured}
    )


def built(chosen: Selection) -> Table1:
    return table1.build(chosen.plan, chosen.store)


def markdown_lines(folder: Path) -> dict[str, list[str]]:
    lines = [line for line in (folder / "table1-tiny.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {line[0]: line[1:] for line in cells}


def test_cells_are_means_over_layers_and_deviations_over_seeds(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row in ROWS:
        store(chosen, row)
    table1.write(built(chosen), tmp_path)
    lines = markdown_lines(tmp_path)
    assert lines[""] == [f"{row} (n=3)" for row in ROWS]
    assert lines["condition claimed"] == [
        "-",
        "J_g = J_f⁺",
        "∏ J_g = (J_f,l:L)⁺",
        "J_g = J_fᵀ",
        "tr(J_f J_g) > 0",
    ]
    # Layers 2 and 3 and seeds 1, 2, 3: 2.5 + 2. The angle: layers 1 and 2.
    assert lines["‖J_g − J_f⁺‖ / ‖J_f⁺‖"] == [
        "4.50 ± 1.00 → 104.50 ± 1.00",
        "**14.50 ± 1.00 → 114.50 ± 1.00**",
        "24.50 ± 1.00 → 124.50 ± 1.00",
        "34.50 ± 1.00 → 134.50 ± 1.00",
        "44.50 ± 1.00 → 144.50 ± 1.00",
    ]
    assert lines["∠(update of W, −gradient), degrees"][1] == "22.5 ± 1.0 → 122.5 ± 1.0"
    bold = {(q, row) for q, line in lines.items() for row, c in zip(ROWS, line, strict=True) if "**" in c}
    assert bold == {
        ("‖J_g − J_f⁺‖ / ‖J_f⁺‖", "DTP"),
        ("cos(J_g, J_f⁺)", "DTP"),
        ("‖∏ J_g − (J_f,l:L)⁺‖ / ‖(J_f,l:L)⁺‖", "DRL"),
        ("cos(∏ J_g, (J_f,l:L)⁺)", "DRL"),
        ("‖J_g − J_fᵀ‖ / ‖J_fᵀ‖", "L-DRL"),
        ("cos(J_g, J_fᵀ)", "L-DRL"),
        ("tr(J_f J_g)", "FW-DTP"),
    }


def test_the_page_has_the_same_cells_in_bold(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row in ROWS:
        store(chosen, row)
    _, shown_on_page = report_table1(chosen, Console(file=StringIO()))
    (exhibit,) = shown_on_page()
    assert exhibit.table is not None
    shown = {row.cells[0].text: row.cells[1:] for row in exhibit.table.rows}
    for head, cells in markdown_lines(chosen.root / "tables").items():
        if head in shown:
            assert [f"**{c.text}**" if c.rank else "-" if c.absent else c.text for c in shown[head]] == cells
    assert sum(cell.rank == 1 for cells in shown.values() for cell in cells) == 7


def test_csv_has_every_encoder(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, "DRL")
    table1.write(built(chosen), tmp_path)
    table = pd.read_csv(tmp_path / "table1-tiny.csv").set_index(["stage", "quantity", "encoder"]).sort_index()
    assert len(table) == 2 * (9 * 3 + 4)
    number = list(QUANTITIES).index("trace")
    for l in (2, 3):
        line = table.loc[("trained", "trace", str(l))]
        assert (line["method"], line["n"], line["mean"], line["std"]) == (
            "DRL",
            3,
            20 + number + l + 2 + 100,
            1,
        )
    assert table.loc[("trained", "update_angle", "1"), "n"] == 3


def test_missing_and_not_finite_are_said(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, "L-DRL", nan=(1,))
    store(chosen, "FW-DTP", nan=(1, 2, 3))
    found = built(chosen)
    table1.write(found, tmp_path)
    lines = markdown_lines(tmp_path)
    assert lines[""] == ["TP (n=0)", "DTP (n=0)", "DRL (n=0)", "L-DRL (n=3)", "FW-DTP (n=3)"]
    assert lines["cos(J_g, J_f⁺)"] == [
        "-",
        "-",
        "-",
        "35.50 ± 1.00 → 136.00 ± 0.71 [n=2]",
        "45.50 ± 1.00 → not finite",
    ]
    console = Console(record=True, width=250, soft_wrap=True)
    table1.show(found, console)
    for text in (
        console.export_text(),
        (tmp_path / "table1-tiny.md").read_text(),
        (tmp_path / "table1-tiny.tex").read_text(),
    ):
        assert text.count("Missing: ") == 3
        assert f"--method DTP --dataset {MINI} --results {tmp_path / 'results'}" in text
        assert "--method FW-DTP" not in text


def test_an_empty_store_gives_an_empty_table(tmp_path: Path) -> None:
    found = built(select(tmp_path))
    assert found.frame().empty
    table1.write(found, tmp_path)
    assert markdown_lines(tmp_path)["tr(J_f J_g)"] == ["-"] * 5


def test_warnings_and_names(tmp_path: Path) -> None:
    assert built(select(tmp_path)).warning is None
    changed = table1.write(built(select(tmp_path, epochs=2)), tmp_path)
    assert [file.name for file in changed] == [
        f"table1-tiny-2-epochs.{suffix}" for suffix in ("md", "csv", "tex")
    ]
    assert "**NOT THE PAPER'S PROTOCOL: --epochs 2**" in changed[0].read_text()
    other = built(select(tmp_path, PLAN.replace("comparable: true", "comparable: false")))
    for file in table1.write(other, tmp_path)[::2]:
        assert "NOT COMPARABLE WITH THE PAPER" in file.read_text()


def test_files_come_out_byte_for_byte(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, "DTP")
    first, second = (
        [file.read_bytes() for file in table1.write(built(chosen), tmp_path / name)] for name in ("a", "b")
    )
    assert first == second


def test_mixed_data_are_refused(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, "DTP", checksum="ab")
    store(chosen, "DRL", checksum="cd")
    with pytest.raises(UserError, match="different images"):
        built(chosen)


def test_every_measured_quantity_has_its_line(tmp_path: Path) -> None:
    """A real run: names in the measurement and in the table are the same ones."""
    chosen = select(tmp_path)
    run = chosen.plan.run("DTP", MINI)
    assert run is not None
    draw = torch.Generator().manual_seed(0)
    split = Split(torch.randn(40, 784, generator=draw), torch.randint(10, (40,), generator=draw))
    data = Dataset(MINI, split, split, "drawn", "ab")
    execute(run, data, chosen.store, torch.device("cpu"), lambda done, result: None)
    found = built(chosen)
    assert set(found.frame()["quantity"]) == set(QUANTITIES)
    assert all("±" in found.cell("DTP", quantity) for quantity in QUANTITIES)
