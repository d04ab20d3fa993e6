"""Closed-form updates against autograd on the losses of the method definitions, in float64."""

import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmark import methods
from benchmark.common.errors import UserError
from benchmark.engine.build import build
from benchmark.methods import METHODS, Hyperparameter, Method

DIMS = [9, 8, 7, 6, 4]
DEPTH = len(DIMS) - 1
SAMPLES = 11
RATES = {
    "lr": [0.3, 0.7],
    "stepsize": [0.05, 0.2],
    "lr_feedback": [0.4, 0.1],
    "noise_std": [0.1, 0.3],
}
TARGET_PROPAGATION = [
    ("TP", {"feedback_updates": 2}),
    ("DTP", {"feedback_updates": 2}),
    ("DTP", {"feedback_updates": 2, "batch_norm": True}),
    ("DRL", {"feedback_updates": 2}),
    ("DRL", {"feedback_updates": 2, "as_released": False}),
    ("L-DRL", {"feedback_updates": 2}),
    ("FW-DTP", {"batch_norm": False}),
    ("FW-DTP", {"batch_norm": True}),
]
LEARNED = [case for case in TARGET_PROPAGATION if case[0] != "FW-DTP"]

Weights = dict[int, Tensor]


def make(name: str, options: dict[str, Any]) -> Method:
    """Two replicas; decoders as large as encoders, so that no error hides in a small factor."""
    method = METHODS[name]
    rates = {key: RATES[key] for key in method.hyperparameters}
    extra = {"decoder_init": 0.5} if "decoder_init" in method.options else {}
    return build(method, DIMS, [1, 2], rates, {**extra, **options}, dtype=torch.float64)


def normal(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def minibatch(distinct: int) -> tuple[Tensor, Tensor]:
    """A minibatch for two replicas: one each, or one that they share."""
    draw = torch.Generator().manual_seed(5)
    labels = torch.randint(DIMS[-1], (distinct, SAMPLES), generator=draw)
    y = functional.one_hot(labels, DIMS[-1]).to(torch.float64).transpose(1, 2)
    return normal(draw, distinct, DIMS[0], SAMPLES).expand(2, -1, -1), y.expand(2, -1, -1)


class RecordedNoise:
    """Noise that remembers what it drew, for the reference to use again."""

    def __init__(self, method: Method) -> None:
        self.draw = torch.Generator().manual_seed(8)
        self.drawn: list[Tensor] = []

    def __call__(self, like: Tensor) -> Tensor:
        self.drawn.append(normal(self.draw, *like.shape))
        return self.drawn[-1]


class Reference:
    """One replica, written down from the definitions, every gradient by autograd."""

    def __init__(self, name: str, method: Method, replica: int) -> None:
        network = method.network
        self.name = name
        self.rate = {key: RATES[key][replica] for key in RATES}
        self.norm = getattr(method, "batch_norm", False)
        self.as_released = getattr(method, "as_released", False)
        self.updates = getattr(method, "feedback_updates", 0) if method.learns_feedback else 0
        self.W = {l: network.f(l).weight[replica].clone() for l in range(1, DEPTH + 1)}
        self.B: Weights = {}
        if method.feedback != "none":
            self.B = {l: network.g(l).weight[replica].clone() for l in range(2, DEPTH + 1)}

    def N(self, z: Tensor, active: bool) -> Tensor:
        if not active:
            return z
        return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-12)

    def f(self, l: int, h: Tensor, weight: Tensor | None = None) -> Tensor:
        a = (self.W[l] if weight is None else weight) @ h
        if l == DEPTH:
            return self.N(a, self.norm and self.name == "FW-DTP")
        return self.N(torch.tanh(a), self.norm)

    def g(self, l: int, t: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.N(torch.tanh((self.B[l] if weight is None else weight) @ t), self.norm)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = [x]
        for l in range(1, DEPTH + 1):
            h.append(self.f(l, h[-1]))
        return h

    def feedback_loss(self, l: int, b: Tensor, h: list[Tensor], eps: Iterator[Tensor]) -> Tensor:
        below = h[l - 1]
        if self.name in ("TP", "DTP"):
            q = below + self.rate["noise_std"] * next(eps)
            return ((self.g(l, self.f(l, q), b) - q) ** 2).sum()
        if self.name == "DRL":
            disturbed = q = below + self.rate["noise_std"] * next(eps)
            for m in range(l, DEPTH + 1):
                q = self.f(m, q)
            for m in range(DEPTH, l - 1, -1):
                bracket = h[m - 1] - self.g(m, self.f(m, h[m - 1]))
                q = self.g(m, q, b if m == l else None) + bracket
            return (((below if self.as_released else disturbed) - q) ** 2).sum()
        c = below - self.g(l, self.f(l, below))
        q = below + self.rate["noise_std"] * next(eps)
        r = self.f(l, below) + self.rate["noise_std"] * next(eps)
        q_rec, r_rec = (self.g(l, up, b) + c for up in (self.f(l, q), r))
        return -((q - below) * (q_rec - below)).sum() + 0.5 * ((r_rec - below) ** 2).sum()

    def update_decoders(self, h: list[Tensor], eps: Iterator[Tensor]) -> None:
        for l in range(DEPTH, 1, -1):
            b = self.B[l].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.feedback_loss(l, b, h, eps), b)
            self.B[l] = self.B[l] - self.rate["lr_feedback"] / SAMPLES * gradient

    def targets(self, h: list[Tensor], y: Tensor) -> Weights:
        logits = h[DEPTH].clone().requires_grad_()
        loss = functional.cross_entropy(logits.T, y.argmax(0), reduction="sum")
        tau = {DEPTH: h[DEPTH] - self.rate["stepsize"] * torch.autograd.grad(loss, logits)[0]}
        for l in range(DEPTH - 1, 0, -1):
            tau[l] = self.g(l + 1, tau[l + 1])
            if self.name != "TP":
                tau[l] = self.N(tau[l] + h[l] - self.g(l + 1, h[l + 1]), self.norm)
        return tau

    def train_step(self, x: Tensor, y: Tensor, eps: Iterator[Tensor]) -> Weights:
        h = self.forward(x)
        for _ in range(self.updates):
            self.update_decoders(h, eps)
        tau = self.targets(h, y)
        for l in range(1, DEPTH + 1):
            w = self.W[l].clone().requires_grad_()
            loss = ((tau[l] - self.f(l, h[l - 1], w)) ** 2).sum()
            self.W[l] = self.W[l] - self.rate["lr"] / SAMPLES * torch.autograd.grad(loss, w)[0]
        return tau


def assert_same(method: Method, replica: int, reference: Reference) -> None:
    for l, w in reference.W.items():
        torch.testing.assert_close(method.network.f(l).weight[replica], w, rtol=0, atol=1e-10)
    for l, b in reference.B.items():
        torch.testing.assert_close(method.network.g(l).weight[replica], b, rtol=0, atol=1e-10)


def label(value: Any) -> str | None:
    if isinstance(value, dict):
        return (
            "BN" if value.get("batch_norm") else "plain" if value.get("as_released", True) else "as defined"
        )
    return None


def test_the_seven_learning_rules_and_a_baseline_are_found() -> None:
    assert set(METHODS) == {"BP", "FA", "TP", "DTP", "DRL", "L-DRL", "FW-DTP", "Shallow"}


@pytest.mark.parametrize("distinct", [1, 2])
@pytest.mark.parametrize("name", ["BP", "FA", "Shallow"])
def test_gradient_methods_against_autograd(name: str, distinct: int) -> None:
    """FA is autograd through a network whose backward pass sees M_l in the place of W_l.

    Of Shallow's gradient the output layer's is left.
    """

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, u: Tensor, w: Tensor, m: Tensor) -> Tensor:
            ctx.save_for_backward(u, m)
            return w @ u

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
            u, m = ctx.saved_tensors
            return m.T @ grad, grad @ u.T, None

    method = make(name, {})
    x, y = minibatch(distinct)
    references = [Reference(name, method, replica) for replica in range(2)]
    logits = method.train_step(x, y, RecordedNoise(method))
    for replica, reference in enumerate(references):
        W = {l: w.requires_grad_() for l, w in reference.W.items()}
        h = x[replica]
        for l in range(1, DEPTH + 1):
            a = W[l] @ h if name != "FA" else Linear.apply(h, W[l], reference.B.get(l, W[l]))
            h = torch.tanh(a) if l < DEPTH else a
        torch.testing.assert_close(logits[replica], h.detach(), rtol=0, atol=1e-10)
        loss = functional.cross_entropy(h.T, y[replica].argmax(0), reduction="sum")
        loss.backward()
        for l, w in W.items():
            assert w.grad is not None
            if name == "Shallow" and l < DEPTH:
                w.grad.zero_()
            reference.W[l] = w.detach() - RATES["lr"][replica] / SAMPLES * w.grad
        assert_same(method, replica, reference)


def test_as_released_differs_above_the_first_layer_only() -> None:
    exact, released = make("BP", {}), make("BP", {"as_released": True})
    x, y = minibatch(2)
    for method in (exact, released):
        method.train_step(x, y, RecordedNoise(method))
    same = [torch.equal(exact.network.f(l).weight, released.network.f(l).weight) for l in range(1, DEPTH + 1)]
    assert same == [True] + [False] * (DEPTH - 1)


@pytest.mark.parametrize("distinct", [1, 2])
@pytest.mark.parametrize(("name", "options"), LEARNED, ids=label)
def test_decoder_update_descends_the_feedback_loss(name: str, options: dict[str, Any], distinct: int) -> None:
    method = make(name, options)
    x, _ = minibatch(distinct)
    references = [Reference(name, method, replica) for replica in range(2)]
    noise = RecordedNoise(method)
    method.pretrain_step(x, noise)
    draws_a_layer = 2 if name == "L-DRL" else 1
    assert len(noise.drawn) == draws_a_layer * (DEPTH - 1)
    for replica, reference in enumerate(references):
        before = dict(reference.B)
        eps = (drawn[replica] for drawn in noise.drawn)
        reference.update_decoders(reference.forward(x[replica]), eps)
        assert all((reference.B[l] - before[l]).abs().max() > 1e-3 for l in before)
        assert_same(method, replica, reference)


@pytest.mark.parametrize("as_released", [True, False])
def test_released_drl_teaches_decoders_to_suppress_disturbances(as_released: bool) -> None:
    """Of a disturbance of h_3 that went up to the output, how much the last decoder brings back."""
    method = make("DRL", {"as_released": as_released})
    x, _ = minibatch(2)
    noise = RecordedNoise(method)
    network = method.network
    h3 = network.pass_forward(x)[3]
    eps = 0.01 * normal(noise.draw, *h3.shape)

    def share() -> float:
        back = network.g(4)(network.f(4)(h3 + eps)) - network.g(4)(network.f(4)(h3))
        return float((back * eps).sum() / eps.square().sum())

    assert 0.1 < share() < 0.2
    for _ in range(1000):
        method.pretrain_step(x, noise)
    assert share() < 0.01 if as_released else share() > 0.4


@pytest.mark.parametrize("distinct", [1, 2])
@pytest.mark.parametrize(("name", "options"), TARGET_PROPAGATION, ids=label)
def test_train_step_is_the_defined_iteration(name: str, options: dict[str, Any], distinct: int) -> None:
    """Two iterations in a row: nothing remembered in one may leak into the next."""
    method = make(name, options)
    x, y = minibatch(distinct)
    references = [Reference(name, method, replica) for replica in range(2)]
    for _ in range(2):
        noise = RecordedNoise(method)
        logits = method.train_step(x, y, noise)
        for replica, reference in enumerate(references):
            own = x[replica]
            torch.testing.assert_close(logits[replica], reference.forward(own)[DEPTH], rtol=0, atol=1e-10)
            eps = (drawn[replica] for drawn in noise.drawn)
            reference.train_step(own, y[replica], eps)
            assert next(eps, None) is None, "noise drawn that the definition does not use"
            assert_same(method, replica, reference)


@pytest.mark.parametrize(("name", "options"), TARGET_PROPAGATION, ids=label)
def test_targets(name: str, options: dict[str, Any]) -> None:
    method = make(name, options)
    x, y = minibatch(2)
    tau = method.targets(method.network.pass_forward(x), y)  # type: ignore[attr-defined]
    assert set(tau) == set(range(1, DEPTH + 1))
    for replica in range(2):
        reference = Reference(name, method, replica)
        expected = reference.targets(reference.forward(x[replica]), y[replica])
        for l, target in expected.items():
            torch.testing.assert_close(tau[l][replica], target, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_fixed_decoders_stay_fixed(batch_norm: bool) -> None:
    method = make("FW-DTP", {"batch_norm": batch_norm})
    before = [method.network.g(l).weight.clone() for l in range(2, DEPTH + 1)]
    x, y = minibatch(2)
    noise = RecordedNoise(method)
    method.train_step(x, y, noise)
    assert noise.drawn == []
    after = [method.network.g(l).weight for l in range(2, DEPTH + 1)]
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("name = 'Mine'", r"Mine defines no train_step\(self, x, y, noise\)"),
        ("hyperparameters = ('lr',)", r"Mine\.hyperparameters: declare each by an annotation instead"),
        ("options = {'decay': True}", r"Mine\.options: declare each by an annotation instead"),
        ("lr: Unknown", "name 'Unknown' is not defined"),
    ],
)
def test_a_rule_that_cannot_be_imported_is_an_error(tmp_path: Path, body: str, problem: str) -> None:
    text = f"from benchmark.methods.base import Method\nclass Mine(Method):\n    {body}\n"
    (tmp_path / "zzz_mine.py").write_text(text)
    places = {"__path__": [*methods.__path__, str(tmp_path)]}
    with pytest.raises(UserError, match=rf"zzz_mine\.py cannot be imported: \w+Error: {problem}"):
        runpy.run_path(str(methods.__file__), places, "benchmark.methods")


DECLARED = {
    "BP": (("lr",), {"as_released": False}),
    "FA": (("lr",), {"as_released": False}),
    "Shallow": (("lr",), {}),
    "TP": (("lr", "stepsize", "lr_feedback", "noise_std"), {"feedback_updates": 5, "decoder_init": 0.01}),
    "DTP": (
        ("lr", "stepsize", "lr_feedback", "noise_std"),
        {"feedback_updates": 5, "decoder_init": 0.01, "batch_norm": False},
    ),
    "DRL": (
        ("lr", "stepsize", "lr_feedback", "noise_std"),
        {"feedback_updates": 5, "decoder_init": 0.01, "as_released": True},
    ),
    "L-DRL": (("lr", "stepsize", "lr_feedback", "noise_std"), {"feedback_updates": 5, "decoder_init": 0.01}),
    "FW-DTP": (("lr", "stepsize"), {"decoder_init": 0.01, "batch_norm": True}),
}


@pytest.mark.parametrize("name", METHODS)
def test_what_annotations_declare(name: str) -> None:
    hyperparameters, options = DECLARED[name]
    assert METHODS[name].hyperparameters == hyperparameters
    assert METHODS[name].options == options
    assert {key: type(value) for key, value in METHODS[name].options.items()} == {
        key: type(value) for key, value in options.items()
    }


def test_a_variant_adds_to_what_it_varies() -> None:
    class Mine(METHODS["BP"]):  # type: ignore[name-defined,misc]
        name = "Mine"
        as_released = True
        momentum: Hyperparameter
        kind: Literal["a", "b"] = "a"
        counted: ClassVar[int] = 3

    assert Mine.hyperparameters == ("lr", "momentum")
    assert Mine.options == {"as_released": True, "kind": "a"}


@pytest.mark.parametrize("value", [0.5, "orthogonal"])
def test_an_option_of_its_type(value: object) -> None:
    METHODS["DTP"].check_options({"decoder_init": value}, "options")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("decoder_init", "normal", "finite float greater than 0 or 'orthogonal' expected"),
        ("decoder_init", 1, "finite float greater than 0 or 'orthogonal' expected"),
        ("decoder_init", math.inf, "finite float greater than 0 or 'orthogonal' expected"),
        ("feedback_updates", 0, "int greater than 0 expected"),
        ("feedback_updates", True, "int greater than 0 expected"),
        ("batch_norm", 1, "bool expected"),
    ],
)
def test_an_option_of_another_type(option: str, value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^here.{option}: {value!r} found, {expected}$"):
        METHODS["DTP"].check_options({option: value}, "here")


def test_a_method_without_a_name_is_refused(tmp_path: Path) -> None:
    """It would have its parent's, and never be found."""
    text = "from benchmark.methods.bp import BP\nclass Nameless(BP):\n    nam = 'Mine'\n"
    (tmp_path / "zzz_nameless.py").write_text(text)
    places = {"__path__": [*methods.__path__, str(tmp_path)]}
    try:
        with pytest.raises(UserError, match=r"zzz_nameless\.py: Nameless needs a `name`"):
            runpy.run_path(str(methods.__file__), places, "benchmark.methods")
    finally:
        sys.modules.pop("benchmark.methods.zzz_nameless", None)


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zzz_twin.py").write_text(
        "from benchmark.methods.bp import BP\nclass Twin(BP):\n    name = 'BP'\n"
    )
    places = {"__path__": [*methods.__path__, str(tmp_path)]}
    try:
        with pytest.raises(
            UserError, match=r"zzz_twin\.py: benchmark/methods/bp\.py has a method named 'BP'"
        ):
            runpy.run_path(str(methods.__file__), places, "benchmark.methods")
    finally:
        sys.modules.pop("benchmark.methods.zzz_twin", None)
