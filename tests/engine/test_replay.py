"""The released code's traces, tampered ones, and traces made here by plain autograd."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmark.common.errors import UserError
from benchmark.engine.replay import TRACED, replay

TRACES = Path(__file__).parents[1] / "reference_traces"
TOLERANCE = 1e-5
LEARNED = ["tp", "dtp", "dtp_bn", "drl", "l_drl"]
FIXED = ["fw_dtp", "fw_dtp_bn"]

Arrays = dict[str, np.ndarray]


def arrays_of(name: str) -> Arrays:
    with np.load(TRACES / f"{name}.npz") as arrays:
        return dict(arrays)


def save(file: Path, arrays: Arrays) -> Path:
    np.savez(file, **arrays)
    return file


@pytest.mark.parametrize("name", TRACED)
def test_agrees_with_the_released_code(name: str) -> None:
    deviation = replay(TRACES / f"{name}.npz")
    assert deviation.method == TRACED[name][0]
    assert deviation.steps == 3
    assert not deviation.exceeds(TOLERANCE)
    assert all(value <= TOLERANCE for value in deviation.largest.values() if value is not None)
    compared = {"W", "logits"}
    compared |= {"tau"} if name in LEARNED + FIXED else set()
    compared |= {"B"} if name in LEARNED else set()
    # Float32 in another order: a deviation of exactly zero would mean that nothing was compared.
    assert {quantity for quantity, value in deviation.largest.items() if value} == compared


TAMPERED = [("W", "s2_W3", TRACED), ("logits", "s0_logits", TRACED)]
TAMPERED += [("tau", "s1_tau1", LEARNED + FIXED), ("B", "s2_u1_B2", LEARNED)]


@pytest.mark.parametrize("value", [1e-4, np.nan, np.inf])
@pytest.mark.parametrize(
    ("name", "quantity", "array"),
    [(name, quantity, array) for quantity, array, names in TAMPERED for name in names],
)
def test_one_changed_number_is_a_deviation(
    tmp_path: Path, name: str, quantity: str, array: str, value: float
) -> None:
    arrays = arrays_of(name)
    arrays[array][0, -1] += value
    deviation = replay(save(tmp_path / f"{name}.npz", arrays))
    assert deviation.exceeds(TOLERANCE)
    assert {q for q, v in deviation.largest.items() if v and v > TOLERANCE} == {quantity}


@pytest.mark.parametrize("start", ["W0", "x"])
@pytest.mark.parametrize("name", TRACED)
def test_another_start_is_a_deviation(tmp_path: Path, name: str, start: str) -> None:
    arrays = arrays_of(name)
    arrays[start].flat[0] += 0.1
    assert replay(save(tmp_path / f"{name}.npz", arrays)).exceeds(TOLERANCE)


@pytest.mark.parametrize("name", LEARNED)
def test_other_noise_is_a_deviation(tmp_path: Path, name: str) -> None:
    arrays = arrays_of(name)
    arrays["s1_u1_noise0"] *= 1.5
    largest = replay(save(tmp_path / f"{name}.npz", arrays)).largest
    assert largest["B"] is not None
    assert largest["B"] > TOLERANCE


@pytest.mark.parametrize(("saved_as", "content"), [("dtp", "tp"), ("fw_dtp", "fw_dtp_bn"), ("drl", "dtp")])
def test_the_trace_of_another_method_does_not_pass(tmp_path: Path, saved_as: str, content: str) -> None:
    assert replay(save(tmp_path / f"{saved_as}.npz", arrays_of(content))).exceeds(TOLERANCE)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        *[(name, array) for name in TRACED for array in ("dims", "x", "y", "lr", "W1", "s1_W2")],
        *[(name, "B3") for name in (*LEARNED, *FIXED, "fa")],
        *[(name, array) for name in LEARNED for array in ("lr_feedback", "s2_u1_B1", "s0_tau4")],
        ("fw_dtp_bn", "stepsize"),
        ("dtp", "feedback_updates"),
    ],
)
def test_a_missing_array_is_named(tmp_path: Path, name: str, array: str) -> None:
    arrays = arrays_of(name)
    del arrays[array]
    with pytest.raises(UserError, match=rf"{name}-cut\.npz: .*{array}"):
        replay(save(tmp_path / f"{name}-cut.npz", arrays))


@pytest.mark.parametrize("array", ["s0_u0_noise0", "s1_u0_noise1", "s2_u1_noise2"])
@pytest.mark.parametrize("name", LEARNED)
def test_missing_noise_is_an_error(tmp_path: Path, name: str, array: str) -> None:
    arrays = arrays_of(name)
    del arrays[array]
    with pytest.raises(UserError, match=rf"{name}-cut\.npz: "):
        replay(save(tmp_path / f"{name}-cut.npz", arrays))


MISSHAPEN: dict[str, Any] = {
    "dims": np.array([20, 12, 12, 5]),
    "x": np.zeros((3, 16, 19), np.float32),
    "y": np.full((3, 16), 5),
    "W1": np.zeros((12, 13), np.float32),
    "B2": np.zeros((12, 13), np.float32),
    "lr": np.array([0.1, 0.2]),
    "s0_W1": np.zeros((12, 13), np.float32),
    "s0_tau2": np.zeros((12, 16), np.float32),
    "s0_u0_noise0": np.zeros((16, 13), np.float32),
    "s0_logits": np.array("text"),
    "s0_tau1": np.full((16, 12), "text"),
}


@pytest.mark.parametrize("array", MISSHAPEN)
def test_an_array_of_the_wrong_shape_is_an_error(tmp_path: Path, array: str) -> None:
    arrays = arrays_of("dtp") | {array: MISSHAPEN[array]}
    with pytest.raises(UserError, match=r"dtp-odd\.npz"):
        replay(save(tmp_path / "dtp-odd.npz", arrays))


def _truncated(trace: bytes) -> bytes:
    return trace[: len(trace) // 2]


def _flipped(trace: bytes) -> bytes:
    middle = len(trace) // 2
    return trace[:middle] + bytes(64) + trace[middle + 64 :]


CONTENTS = {
    "text": lambda trace: b"not an archive\n",
    "empty": lambda trace: b"",
    "truncated": _truncated,
    "overwritten": _flipped,
    "pickle": lambda trace: b"\x80\x04N.",
}


def test_a_trace_without_steps_compares_nothing_and_is_an_error(tmp_path: Path) -> None:
    arrays = arrays_of("dtp")
    arrays |= {"x": arrays["x"][:0], "y": arrays["y"][:0]}
    with pytest.raises(UserError, match=r"dtp\.npz"):
        replay(save(tmp_path / "dtp.npz", arrays))


@pytest.mark.parametrize("name", ["dtp", "fw_dtp_bn"])
def test_double_precision_and_other_integers_are_read(tmp_path: Path, name: str) -> None:
    wide = {
        key: array.astype(np.float64 if array.dtype == np.float32 else np.int32)
        for key, array in arrays_of(name).items()
        if array.shape
    }
    deviation = replay(save(tmp_path / f"{name}.npz", arrays_of(name) | wide))
    assert not deviation.exceeds(TOLERANCE)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_is_no_archive_is_an_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bp.npz"
    file.write_bytes(CONTENTS[content]((TRACES / "bp.npz").read_bytes()))
    with pytest.raises(UserError, match=r"bp\.npz: not a readable \.npz archive"):
        replay(file)


def test_a_single_array_and_a_pickled_one_are_errors(tmp_path: Path) -> None:
    with open(tmp_path / "bp.npz", "wb") as file:
        np.save(file, np.zeros(3))
    save(tmp_path / "tp.npz", arrays_of("tp") | {"dims": np.array([20, "a", None], dtype=object)})
    for name in ("bp", "tp"):
        with pytest.raises(UserError, match=rf"{name}\.npz: not a readable"):
            replay(tmp_path / f"{name}.npz")


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dtp\.npz: no such file"):
        replay(tmp_path / "dtp.npz")


@pytest.mark.parametrize("stem", ["adam", "dtpx", "xdtp", "fw", "trace"])
def test_a_file_name_without_a_method_is_an_error(tmp_path: Path, stem: str) -> None:
    file = save(tmp_path / f"{stem}.npz", arrays_of("dtp"))
    with pytest.raises(UserError, match=rf"{stem}\.npz: the file name must begin with one of bp"):
        replay(file)


@pytest.mark.parametrize(
    ("stem", "name"),
    [("fw-dtp-bn", "fw_dtp_bn"), ("dtp_bn-2", "dtp_bn"), ("dtp.second", "dtp"), ("L-DRL", "l_drl")],
)
def test_a_file_name_may_go_on_after_the_method(tmp_path: Path, stem: str, name: str) -> None:
    deviation = replay(save(tmp_path / f"{stem}.npz", arrays_of(name)))
    assert not deviation.exceeds(TOLERANCE)
    assert deviation.method == TRACED[name][0]


def _norm(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.std(0) + 1e-12)


def own_trace(
    *, learned: bool, batch_norm: bool, dims: list[int], samples: int, steps: int, updates: int
) -> Arrays:
    """DTP (`learned`) or FW-DTP, eager and with autograd; samples as rows, arrays as released."""
    depth, draw = len(dims) - 1, torch.Generator().manual_seed(7)
    lr, stepsize, lr_feedback, noise_std = 0.2, 0.05, 0.1, 0.2
    W = [torch.randn(out, into, generator=draw) / into**0.5 for into, out in itertools.pairwise(dims)]
    B = [0.3 * torch.randn(w.T.shape, generator=draw) for w in W]
    x = torch.randn(steps, samples, dims[0], generator=draw)
    y = torch.randint(dims[-1], (steps, samples), generator=draw)
    trace: Arrays = {
        "dims": np.array(dims),
        "x": x.numpy(),
        "y": y.numpy(),
        "lr": np.array(lr),
        "stepsize": np.array(stepsize),
        "lr_feedback": np.array(lr_feedback),
        "noise_std": np.array(noise_std),
        "feedback_updates": np.array(updates),
    }

    def keep(key: str, value: Tensor) -> None:
        trace[key] = value.detach().numpy().copy()

    def f(i: int, h: Tensor, w: Tensor) -> Tensor:
        last = i == depth - 1
        a = h @ w.T if last else torch.tanh(h @ w.T)
        return _norm(a) if batch_norm and not (last and learned) else a

    def g(t: Tensor, b: Tensor) -> Tensor:
        back = torch.tanh(t @ b.T)
        return _norm(back) if batch_norm else back

    def gradient(loss: Tensor, weight: Tensor) -> Tensor:
        return torch.autograd.grad(loss, weight)[0] / samples

    for i in range(depth):
        keep(f"W{i}", W[i])
        keep(f"B{i}", B[i])
    for s in range(steps):
        h = [x[s]]
        for i in range(depth):
            h.append(f(i, h[i], W[i]))
        for u in range(updates if learned else 0):
            for count, i in enumerate(reversed(range(1, depth))):
                eps = noise_std * torch.randn(h[i].shape, generator=draw)
                keep(f"s{s}_u{u}_noise{count}", eps)
                b = B[i].clone().requires_grad_()
                loss = ((g(f(i, h[i] + eps, W[i]), b) - (h[i] + eps)) ** 2).sum()
                B[i] = B[i] - lr_feedback * gradient(loss, b)
            for i in range(1, depth):
                keep(f"s{s}_u{u}_B{i}", B[i])
        logits = h[depth].clone().requires_grad_()
        loss = functional.cross_entropy(logits, y[s], reduction="sum")
        tau = {depth: h[depth] - stepsize * torch.autograd.grad(loss, logits)[0]}
        for i in reversed(range(1, depth)):
            tau[i] = g(tau[i + 1], B[i]) + h[i] - g(h[i + 1], B[i])
            tau[i] = _norm(tau[i]) if batch_norm else tau[i]
        for i in range(depth):
            keep(f"s{s}_h{i + 1}", h[i + 1])
            keep(f"s{s}_tau{i + 1}", tau[i + 1])
            w = W[i].clone().requires_grad_()
            W[i] = W[i] - lr * gradient(((tau[i + 1] - f(i, h[i], w)) ** 2).sum(), w)
            keep(f"s{s}_W{i}", W[i])
        out = x[s]
        for i in range(depth):
            out = f(i, out, W[i])
        keep(f"s{s}_logits", out)
    return trace


@pytest.mark.parametrize(
    ("dims", "samples", "steps", "updates"),
    [([31, 17, 9, 23, 11, 6], 37, 2, 3), ([8, 10, 3], 12, 5, 1), ([64, 48, 48, 10], 50, 1, 5)],
)
@pytest.mark.parametrize(("name", "learned"), [("fw_dtp_bn", False), ("dtp", True)])
def test_traces_of_any_size(
    tmp_path: Path,
    name: str,
    learned: bool,
    dims: list[int],
    samples: int,
    steps: int,
    updates: int,
) -> None:
    arrays = own_trace(
        learned=learned,
        batch_norm=not learned,
        dims=dims,
        samples=samples,
        steps=steps,
        updates=updates,
    )
    deviation = replay(save(tmp_path / f"{name}-own.npz", arrays))
    assert deviation.steps == steps
    assert not deviation.exceeds(TOLERANCE), deviation.largest
    arrays[f"s{steps - 1}_W1"][0, 0] += 1e-3
    assert replay(save(tmp_path / f"{name}-own.npz", arrays)).exceeds(TOLERANCE)
