"""Timing: the cost formulas against a count of the real step, and the command's output."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode, baddbmm_flop

from benchmark import timing
from benchmark.methods import METHODS, Method, build
from benchmark.options import Selection, run_app
from benchmark.sweep import State, Status

DIMS = [11, 8, 7, 6, 5]
SAMPLES, REPLICAS = 13, 2
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("BP", {"as_released": True}),
    ("FA", {"as_released": True}),
    *((name, {"feedback_updates": n}) for name in ("TP", "DTP", "DRL", "L-DRL") for n in (1, 3)),
    ("DTP", {"batch_norm": True}),
    ("FW-DTP", {"batch_norm": False}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
@pytest.mark.parametrize("dims", [DIMS, DIMS[:2] + DIMS[-1:]], ids=["deep", "one hidden layer"])
def test_multiply_adds_are_counted(name: str, options: dict[str, Any], dims: list[int]) -> None:
    method = METHODS[name]
    rates = dict.fromkeys(method.hyperparameters, 0.1)
    built = build(method, dims, [1, 2], rates, options)
    x = torch.randn(REPLICAS, dims[0], SAMPLES)
    y = torch.eye(dims[-1])[torch.randint(dims[-1], (REPLICAS, SAMPLES))].transpose(1, 2)

    def in_place(*shapes: Any, out_shape: Any = None, **more: Any) -> int:
        return int(baddbmm_flop(*shapes))

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: in_place}) as counter:
        built.train_step(x, y, lambda like: 0.1 * torch.randn_like(like))
    said = method.multiply_adds(dims, {**method.options, **options})
    assert counter.get_total_flops() == 2 * said * SAMPLES * REPLICAS


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m benchmark.timing`: exit status, stdout, stderr."""
    monkeypatch.setattr(timing, "matmul_rate", lambda *shape: 1e9)

    def call(*arguments: str) -> tuple[int, str, str]:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(timing.command)
        monkeypatch.setattr(sys, "argv", ["timing", *arguments])
        with pytest.raises(SystemExit) as end:
            run_app(app)
        return (int(end.value.code or 0), *capsys.readouterr())

    return call


def test_csv(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "timing.csv"
    arguments = ("--method", "BP,FW-DTP", "--replicas", "1-2", "--seconds", "0", "--device", "cpu")
    code, out, err = command(*arguments, "--csv", str(file))
    assert (code, err) == (0, "")
    assert "FW-DTP" in out
    table = pd.read_csv(file)
    needed = ["method", "dataset", "replicas", "seconds_per_epoch", "matmul_share"]
    assert set(needed) <= set(table.columns)
    assert list(zip(table["method"], table["replicas"], strict=True)) == [
        ("BP", 1),
        ("FW-DTP", 1),
        ("BP", 2),
        ("FW-DTP", 2),
    ]
    assert (table["dataset"] == "mnist").all()
    assert (table[["seconds_per_epoch", "matmul_share", "gflops"]] > 0).all().all()
    each = table["seconds_per_epoch"] / table["replicas"]
    assert table["seconds_per_epoch_and_replica"].tolist() == pytest.approx(each.tolist(), rel=1e-4)
    assert table["matmul_share"].tolist() == pytest.approx((table["gflops"] / 2).tolist(), rel=1e-4)
    assert (table["iterations"] >= 5).all()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--csv", "missing/timing.csv"],
        ["--replicas", "0"],
        ["--replicas", "a"],
        ["--replicas", ""],
        ["--replicas", "1,1"],
        ["--replicas", "-1"],
        ["--seconds", "-1"],
        ["--seconds", "nan"],
        ["--seconds", "inf"],
        ["--method", "unknown"],
        ["--dataset", "unknown"],
        ["--method", "TP", "--dataset", "cifar-10"],
        ["--device", "cuda:99"],
        ["--bogus"],
    ],
    ids=" ".join,
)
def test_errors(command: Command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert code != 0
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_unknown_cost_shows_nan(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["BP"], "multiply_adds", Method.multiply_adds)
    code, out, err = command("--method", "BP", "--replicas", "1", "--seconds", "0", "--device", "cpu")
    assert (code, err) == (0, "")
    assert out.count("nan") == 2


def test_matmul_rate_is_a_rate() -> None:
    assert 1e7 < timing.matmul_rate(torch.device("cpu"), 1, 64, 64) < 1e15


def test_seconds_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Selection("quick", None, ["BP,DTP"], None, None, tmp_path)
    bp, dtp = chosen.plan.runs(chosen.rows, chosen.columns)
    on = torch.device("cpu")
    statuses = [Status(bp, State.STORED), Status(dtp, State.PARTIAL, "", 2.0, 3)]
    assert timing.seconds_left(statuses, chosen.plan, on) == [0.0, 2.0 * (dtp.total_epochs - 3)]
    monkeypatch.setattr(timing, "matmul_rate", lambda *shape: 1e9)
    (estimate,) = timing.seconds_left([Status(bp, State.MISSING)], chosen.plan, on)
    assert 0 < estimate < 600


def test_samples(tmp_path: Path) -> None:
    plan = Selection("table2", None, None, None, None, tmp_path).plan
    assert timing.samples_of(plan, "mnist") == 60_000
    assert timing.samples_of(plan, "cifar-10") == 50_000
