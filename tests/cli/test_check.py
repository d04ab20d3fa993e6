"""`python -m benchmark check`."""

import pytest
import torch
from torch import Tensor

from benchmark.engine.check import outcomes
from benchmark.methods import METHODS, Noise
from benchmark.methods.bp import BP
from tests.helpers.commands import Command


class NoLogits(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return None  # type: ignore[return-value]


def test_a_line_for_each_check(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = command("check", "BP")
    assert (code, err) == (0, "")
    gpu = "ok" if torch.cuda.is_available() else "skipped: no CUDA device"
    assert out.splitlines() == [*[f"{one.check}: ok" for one in outcomes(BP)][:-1], f"as a CUDA graph: {gpu}"]
    monkeypatch.setitem(METHODS, "wrong", NoLogits)
    code, out, err = command("check", "wrong")
    assert (code, err) == (1, "")
    assert out == "shapes: train_step returns NoneType; return the logits, (R, classes, n)\n"
    code, out, err = command("check", "bp")
    assert (code, out) == (1, "")
    assert err.startswith("error: unknown method 'bp', allowed: BP, ")
