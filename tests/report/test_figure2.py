"""Figure 2 from made-up measurements: what is drawn is what is stored."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.common.errors import UserError
from benchmark.engine.settings import MEASUREMENTS
from benchmark.report import figure2
from benchmark.report.figure2 import Figure2
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import record_of

MINI = "fashion-mnist-mini"
PLAN = """\
title: Tiny
comparable: {comparable}
protocol: {{epochs: 3, batch_size: 16, seeds: [1, 2, 3], source: guess}}
networks: {{5x4: {{hidden_layers: 5, width: 4, source: guess}}}}
columns: {{fashion-mnist-mini: {{network: 5x4}}}}
measure: {{jacobian: {{rows: [DTP, FW-DTP], columns: [fashion-mnist-mini]}}}}
rows:
  DTP:
    method: DTP
    hyperparameters:
      fashion-mnist-mini: {{lr: 1.0, stepsize: 0.1, lr_feedback: 0.1, noise_std: 0.1, source: guess}}
  FW-DTP:
    method: FW-DTP
    hyperparameters:
      fashion-mnist-mini: {{lr: 1.0, stepsize: 0.1, source: guess}}
"""
DEPTH = 6


def select(folder: Path, comparable: bool = True, epochs: int | None = None, plan: str = PLAN) -> Selection:
    file = folder / "tiny.yaml"
    file.write_text(plan.format(comparable=str(comparable).lower()))
    return Selection(str(file), folder / "results", epochs=epochs)


def value(row: str, encoder: int, epoch: int, seed: int) -> float:
    """Told apart by everything; mean over seeds 1, 2, 3 at seed 2, deviation 0.5."""
    return {"DTP": 40.0, "FW-DTP": 0.0}[row] + encoder + epoch + 0.5 * seed


def store(chosen: Selection, row: str, checksum: str = "ab", nan: tuple[int, ...] = ()) -> pd.DataFrame:
    """A stored run of the row; `nan`: seeds whose measurements are not finite."""
    run = chosen.plan.run(row, MINI)
    assert run is not None
    epochs = [[e, s, 1.0, 50.0, False] for e in range(1, run.epochs + 1) for s in run.seeds]
    rows = [
        [
            e,
            s,
            l,
            statistics,
            *(np.nan if s in nan else sign * value(row, l, e, s) for sign in (1, 0.01, 0.02)),
            0,
        ]
        for e in range(run.epochs + 1)
        for s in run.seeds
        for l in range(2, DEPTH + 1)
        for statistics in ("sample", "batch")
    ]
    measured = pd.DataFrame(rows, columns=["epoch", "seed", *MEASUREMENTS["jacobian"].columns])
    measured.loc[measured["statistics"] == "batch", "trace"] = -1.0
    record = record_of(run, checksum)
    chosen.store.commit(
        row, record, pd.DataFrame(epochs, columns=list(EPOCH_COLUMNS)), {"jacobian": measured}
    )
    return measured


def built(chosen: Selection) -> Figure2:
    return figure2.build(chosen.plan, chosen.store)


def test_frame_holds_means_and_deviations(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    stored = store(chosen, "DTP")
    frame = built(chosen).frame()
    assert len(frame) == 3 * 4 * 5 * 2  # quantities, epochs with 0, encoders, conventions
    assert (frame["n"] == 3).all()
    for line in frame.itertuples():
        same = stored[
            (stored.epoch == line.epoch)
            & (stored.encoder == line.encoder)
            & (stored.statistics == line.statistics)
        ][line.quantity]
        assert line.mean == pytest.approx(np.mean(same))
        assert line.std == pytest.approx(np.std(same, ddof=1))


def test_one_seed_has_no_deviation_and_none_no_mean(tmp_path: Path) -> None:
    chosen = select(tmp_path, plan=PLAN.replace("[1, 2, 3]", "[2, 3]"))
    store(chosen, "DTP", nan=(3,))
    store(chosen, "FW-DTP", nan=(2, 3))
    console = Console(width=200, record=True, file=StringIO())
    figure2.show(built(chosen), console)
    lines = [line.split("│") for line in console.export_text().splitlines() if line.startswith("│")]
    cells = {row.strip(): [cell.strip() for cell in cells] for _, row, encoder, *cells, _ in lines}
    assert cells == {
        "DTP": ["50.000 (n=1)", "0.500 (n=1)", "1.000 (n=1)"],
        "FW-DTP": ["not finite"] * 3,
    }


def test_what_is_drawn_is_what_is_stored(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row in ("DTP", "FW-DTP"):
        store(chosen, row)
    canvas = figure2._as_in_the_paper(built(chosen))
    trace, share = canvas.axes
    for panel, factor in ((trace, 1.0), (share, 0.01)):
        lines = [(row, layer) for row in ("DTP", "FW-DTP") for layer in (2, 6)]
        assert len(panel.lines) == len(panel.collections) == len(lines)
        for (row, layer), line, band in zip(lines, panel.lines, panel.collections, strict=True):
            assert f"{row} (n=3)" in str(line.get_label())
            assert f"$f_{layer}$" in str(line.get_label())
            scale = factor * (0.1 if panel is trace and (row, layer) == ("DTP", 2) else 1)
            assert (line.get_linestyle() == "--") == (layer == 6)
            x, y = line.get_data()
            assert list(x) == [0, 1, 2, 3]
            assert list(y) == pytest.approx([scale * value(row, layer, e, 2) for e in range(4)])
            corners = band.get_paths()[0].vertices
            at_end = corners[corners[:, 0] == 3][:, 1]
            assert at_end.max() - at_end.min() == pytest.approx(2 * 0.5 * scale)
    (legend,) = canvas.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "DTP (n=3), 2nd layer ($f_2$), trace × 0.1",
        "DTP (n=3), last layer ($f_6$)",
        "FW-DTP (n=3), 2nd layer ($f_2$)",
        "FW-DTP (n=3), last layer ($f_6$)",
    ]
    assert trace.get_xlabel() == share.get_xlabel() == "epoch"


def test_every_encoder_unscaled(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    for row in ("DTP", "FW-DTP"):
        store(chosen, row)
    canvas = figure2._every_encoder(built(chosen))
    assert len(canvas.axes) == 3 * 2
    for number, panel in enumerate(canvas.axes):
        row, factor = ("DTP", "FW-DTP")[number % 2], (1, 0.01, 0.02)[number // 2]
        assert panel.get_title() == f"{row} (n=3)"
        for layer, line in zip(range(2, 7), panel.lines, strict=True):
            assert list(line.get_ydata()) == pytest.approx(
                [factor * value(row, layer, e, 2) for e in range(4)]
            )


def texts(canvas: object) -> str:
    found = canvas.findobj(lambda artist: hasattr(artist, "get_text"))  # type: ignore[attr-defined]
    return "\n".join(artist.get_text() for artist in found)


@pytest.mark.parametrize("draw", ["_as_in_the_paper", "_every_encoder"])
def test_what_is_missing_is_said_and_not_drawn(tmp_path: Path, draw: str) -> None:
    chosen = select(tmp_path)
    nothing = getattr(figure2, draw)(built(chosen))
    assert not any(panel.lines for panel in nothing.axes)
    assert "not trained yet: DTP, FW-DTP" in texts(nothing)
    store(chosen, "FW-DTP", nan=(2,))
    half = getattr(figure2, draw)(built(chosen))
    assert "not trained yet: DTP" in texts(half)
    assert "FW-DTP (n=2)" in texts(half)
    console = Console(record=True, width=200, soft_wrap=True)
    figure2.show(built(chosen), console)
    shown = console.export_text()
    assert f"--method DTP --dataset {MINI}" in shown
    assert "--method FW-DTP" not in shown
    assert "(n=2)" in shown


def test_not_comparable_is_written_across(tmp_path: Path) -> None:
    plain, marked = select(tmp_path), None
    store(plain, "DTP")
    assert "NOT" not in texts(figure2._as_in_the_paper(built(plain)))
    marked = select(tmp_path, comparable=False)
    assert "NOT COMPARABLE WITH THE PAPER" in texts(figure2._as_in_the_paper(built(marked)))
    changed = select(tmp_path, epochs=2)
    assert "NOT THE PAPER'S PROTOCOL: --epochs 2" in texts(figure2._as_in_the_paper(built(changed)))


def test_files_come_out_byte_for_byte(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, "FW-DTP")
    contents = []
    for name in ("first", "second"):
        files = figure2.write(built(chosen), tmp_path / name)
        contents.append({file.name: file.read_bytes() for file in files})
        assert {file.name for file in (tmp_path / name).iterdir()} == set(contents[-1])
    assert contents[0] == contents[1]
    stems = ("figure2-tiny", "figure2-all-tiny")
    assert set(contents[0]) == {f"{s}.{suffix}" for s in stems for suffix in ("png", "pdf")} | {
        "figure2-tiny.csv"
    }
    assert b"/FontFile2" in contents[0]["figure2-tiny.pdf"]
    assert b"/Type3" not in contents[0]["figure2-tiny.pdf"]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "first" / "figure2-tiny.csv"),
        built(chosen).frame(),
        check_dtype=False,
        rtol=1e-5,
    )
    changed = figure2.write(built(select(tmp_path, epochs=2)), tmp_path / "first")
    assert {file.name for file in changed}.isdisjoint(contents[0])


def test_refusals(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    store(chosen, "DTP", checksum="ab")
    store(chosen, "FW-DTP", checksum="cd")
    with pytest.raises(UserError, match=r"different images: .*/dtp-\w+ on ab.*/fw-dtp-\w+ on cd"):
        built(chosen)
    unmeasured = select(tmp_path, plan=PLAN.replace("measure: {{jacobian", "measure: {{conditions"))
    with pytest.raises(UserError, match="measure: jacobian expected, found: conditions"):
        built(unmeasured)
    (file,) = (tmp_path / "results").glob("runs/*/dtp-*/jacobian.csv")
    file.write_text(file.read_text().replace("sample", "simple"))
    with pytest.raises(UserError, match="changed since the run was stored"):
        built(chosen)
