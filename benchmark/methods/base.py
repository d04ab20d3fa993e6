"""What every learning rule offers to the training loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.methods import seeding
from benchmark.methods.hidden_state import LOST, Snapshot
from benchmark.methods.network import FEEDBACK, Network, initial_weights, weight_count

_OURS = ("name", "network", "pretraining", "state", "source", "note")
"""Beside the members of `Method`, names that it or a plan's entry gives a meaning of its own."""
Noise = Callable[[Tensor], Tensor]
"""Called with an activation (R, features, n): fresh eps ~ Normal(0, noise_std^2) of its shape."""


class Method:
    """A learning rule. A subclass names itself, says what it needs, and defines `train_step`.

    One instance trains the `R` replicas of one `Network`; every hyperparameter is an attribute of shape
    (R, 1, 1). Structural choices shared by all replicas are `options`. What it keeps from one minibatch to
    the next beside the weights is its `state`, and what it draws at random beside `noise` is drawn there.
    """

    name: ClassVar[str]
    """By which a plan's rows call it (`method: DTP`); tables print the row's own."""
    version: ClassVar[int] = 1
    """Part of every run's key: raise it when a change to the method changes its numbers."""
    code: ClassVar[str] = ""
    """Of the method's files, this one aside, as they were when imported: see `provenance.code_of`."""
    hyperparameters: ClassVar[tuple[str, ...]] = ("lr",)
    """Positive numbers, one a replica; `noise_std` among them if `train_step` asks for noise."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Structural choices with their defaults, bool, str or number; the type of the default is the type
    allowed in a plan, of a number what is greater than 0."""
    feedback: ClassVar[str] = "none"
    """What the backward path holds: see `Network`."""
    learns_feedback: ClassVar[bool] = False
    normalises_output: ClassVar[bool] = False
    """Whether the option `batch_norm` extends to the output layer."""

    state: Mapping[str, Tensor]
    """Of every replica what `initial_state` says, (R, ...); changed in place, as the weights are."""
    _built: Snapshot | None = None

    def __init__(
        self, network: Network, hyperparameters: Mapping[str, Tensor], options: Mapping[str, Any]
    ) -> None:
        self.network = network
        self.state = MappingProxyType({})
        self.pretraining = self.pretraining_epochs({**self.options, **options})
        for name in self.hyperparameters:
            setattr(self, name, hyperparameters[name])
        for name, default in self.options.items():
            setattr(self, name, options.get(name, default))

    def __init_subclass__(cls) -> None:
        """`TypeError` for a learning rule without the steps that training calls, as it calls them."""
        super().__init_subclass__()
        for attribute, kind in (("name", str), ("version", int)):
            if type(found := getattr(cls, attribute, kind())) is not kind:
                raise TypeError(f"{cls.__name__}.{attribute} is {found!r}; {kind.__name__} expected")
        if "name" in vars(cls) and not cls.name.strip():
            raise TypeError(f"{cls.__name__}.name is {cls.name!r}; that in a plan's `method` expected")
        if cls.version < 1:
            raise TypeError(f"{cls.__name__}.version is {cls.version}; 1 or more expected")
        for attribute, container, expected in (
            ("hyperparameters", tuple, "a tuple of names"),
            ("options", Mapping, "a mapping of names to defaults"),
        ):
            given = getattr(cls, attribute)
            if not isinstance(given, container) or not all(isinstance(name, str) for name in given):
                raise TypeError(f"{cls.__name__}.{attribute} is {given!r}; {expected} expected")
        for name, default in cls.options.items():
            if type(default) not in (bool, int, float, str):
                raise TypeError(
                    f"{cls.__name__}.options: {name!r} has the default {default!r}; "
                    "bool, int, float or str expected"
                )
        names = (*cls.hyperparameters, *cls.options)
        for name in names:
            if names.count(name) > 1:
                raise TypeError(f"{cls.__name__}: {name!r} is named twice in hyperparameters and options")
            if name in _OURS or hasattr(Method, name) or callable(getattr(cls, name, None)):
                raise TypeError(f"{cls.__name__}: {name!r} is no name for a hyperparameter or an option")
        if cls.feedback not in FEEDBACK:
            allowed = ", ".join(FEEDBACK)
            raise TypeError(f"{cls.__name__}.feedback is {cls.feedback!r}; allowed: {allowed}")
        if "name" in vars(cls) and cls.train_step is Method.train_step:
            raise TypeError(f"{cls.__name__} defines no train_step(self, x, y, noise)")
        pretrains = any("pretraining_epochs" in vars(base) for base in cls.__mro__ if base is not Method)
        if pretrains and cls.pretrain_step is Method.pretrain_step:
            raise TypeError(f"{cls.__name__} has pretraining_epochs, but no pretrain_step(self, x, noise)")
        for step in (Method.train_step, Method.pretrain_step, Method.initial_state):
            asked = inspect.signature(step)
            signature = inspect.signature(getattr(cls, step.__name__))
            try:
                signature.bind(*asked.parameters)
            except TypeError:
                how = ", a class method," if step == Method.initial_state else ""
                raise TypeError(
                    f"{cls.__name__}.{step.__name__}{signature} found, {asked}{how} expected"
                ) from None
        own = (kind for kind in cls.__mro__ if issubclass(kind, Method) and kind is not Method)
        cls.code = provenance.code_of(own)

    def part(self, replicas: slice) -> Self:
        """The same rule for some of the replicas, on the same weights in memory."""
        values = {name: getattr(self, name)[replicas] for name in self.hyperparameters}
        options = {name: getattr(self, name) for name in self.options}
        part = type(self)(self.network.part(replicas, copied=True), values, options)
        part.network = self.network.part(replicas)  # whose weights `__init__` has seen once already
        part.state = MappingProxyType({name: tensor[replicas] for name, tensor in self.state.items()})
        part.remember()
        return part

    def remember(self) -> None:
        """Take what the rule holds as what it was built with, for `refuse_hidden_state`."""
        self._built = Snapshot(
            type(self).__name__,
            self._held,
            trained=("network", "state"),
            hyperparameters=self.hyperparameters,
        )

    def refuse_hidden_state(self) -> None:
        """`UserError` if training has changed on the rule what no checkpoint has and no CUDA graph sees."""
        if self._built is not None:
            self._built.refuse_changes(self._held, f"in training, {LOST}")

    @property
    def _held(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_built"}

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and state, every one (R, ...)."""
        return {
            **self.network.state_dict(),
            **{f"state.{name}": tensor for name, tensor in self.state.items()},
        }

    def load_state_dict(self, values: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` has returned; `UserError` if the rule's state was another one then."""
        own = {f"state.{name}": tensor for name, tensor in self.state.items()}
        theirs = {name: tensor for name, tensor in values.items() if name.startswith("state.")}
        asked, found = ({name: [*t.shape] for name, t in tensors.items()} for tensors in (own, theirs))
        if asked != found:
            raise UserError(
                f"a checkpoint has {found or 'no state'} where {type(self).__name__} has "
                f"{asked or 'no state'}: its `initial_state` has changed since; raise its `version`"
            )
        self.network.load_state_dict({name: t for name, t in values.items() if name not in theirs})
        for name, tensor in own.items():
            tensor.copy_(theirs[name])

    @classmethod
    def network_flags(cls, options: Mapping[str, Any]) -> dict[str, bool]:
        """Where the method's networks are normalised: `hidden_norm`, `output_norm`."""
        batch_norm = options.get("batch_norm", False)
        return {"hidden_norm": batch_norm, "output_norm": batch_norm and cls.normalises_output}

    @classmethod
    def pretraining_epochs(cls, options: Mapping[str, Any]) -> int:
        """Epochs of `pretrain_step` before epoch 1."""
        return 0

    @classmethod
    def initial_state(
        cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
    ) -> dict[str, Tensor]:
        """What one replica of widths `dims` keeps between minibatches beside its weights, at the start.

        `{"velocity": torch.zeros(dims[1], dims[0])}`, say; random numbers come from `draw`, the seed's own.
        In `train_step` it is `self.state["velocity"]`, (R, ...), to be changed in place (`copy_`, `mul_`).
        At least two dimensions, so that replicas stay apart: `torch.zeros(1, 1)` is a counter,
        `torch.zeros(dims[1], 1)` has a number a unit. Weights and hyperparameters are not known here.
        """
        return {}

    @classmethod
    def state_count(cls, dims: Sequence[int]) -> int:
        """Numbers in one replica's `initial_state`, with the default options."""
        return sum(tensor.numel() for tensor in _initial_state(cls, dims, [1], cls.options).values())

    @classmethod
    def multiply_adds(cls, dims: Sequence[int], options: Mapping[str, Any]) -> int | None:
        """Multiply-adds of matrix products that one `train_step` needs, per sample and replica, if known."""
        return None

    @classmethod
    def trained_weights(cls, dims: Sequence[int]) -> int:
        """Weights that learning changes in one replica of widths `dims`; no decoder leads to the input."""
        return weight_count(dims) + (weight_count(dims[1:]) if cls.learns_feedback else 0)

    def pretrain_step(self, x: Tensor, noise: Noise) -> None:
        """One update on a minibatch `x` (S, in, n) before training proper begins."""
        raise NotImplementedError(f"{self.name} has no pre-training")

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """One iteration on a minibatch: `x` (S, in, n), one-hot `y` (R, classes, n).

        Returns the logits (R, classes, n) that the update started from.
        """
        raise NotImplementedError


def build(
    method: type[Method],
    dims: Sequence[int],
    seeds: Sequence[int],
    hyperparameters: Mapping[str, float | Sequence[float]],
    options: Mapping[str, Any] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Method:
    """A method on freshly initialised networks of widths `dims`, one replica an entry of `seeds`.

    A hyperparameter is one number for all replicas or a sequence with one a replica.
    """
    options = {**method.options, **(options or {})}
    extra = {"decoder_init": options["decoder_init"]} if "decoder_init" in options else {}
    encoders, feedback = initial_weights(dims, seeds, feedback=method.feedback, dtype=dtype, **extra)
    network = Network(encoders, feedback, feedback=method.feedback, **method.network_flags(options)).to(
        device
    )
    values = {
        name: torch.as_tensor(value, dtype=dtype, device=device).expand(len(seeds)).clone().reshape(-1, 1, 1)
        for name, value in hyperparameters.items()
    }
    started = Snapshot(
        method.__name__, {"network": network, **values}, trained=("network",), hyperparameters=values
    )
    with seeding.unused_global_generator(f"{method.__name__}.__init__", "`initial_state`"):
        built = method(network, values, options)
    started.refuse_changes(
        {"network": built.network, **{name: getattr(built, name, None) for name in values}},
        "in its `__init__`, where only weights may change, in place",
    )
    state = {name: tensor.to(device) for name, tensor in _initial_state(method, dims, seeds, options).items()}
    built.state = MappingProxyType({n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()})
    built.remember()
    return built


def _initial_state(
    method: type[Method], dims: Sequence[int], seeds: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Of all replicas, (R, ...); drawn on the CPU so every device starts alike."""
    called = f"{method.__name__}.initial_state"
    states: dict[int, dict[str, Tensor]] = {}
    for seed in dict.fromkeys(seeds):
        with seeding.unused_global_generator(called, "`draw`, the generator it is given"):
            found = method.initial_state(dims, options, seeding.generator(seed, "state"))
        if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
            raise UserError(f"{called} returns {found!r}; tensors by name expected")
        shapes = {name: [*tensor.shape] for name, tensor in found.items()}
        if few := next((name for name, shape in shapes.items() if len(shape) < 2), None):
            raise UserError(
                f"{called}: {few!r} has the shape {shapes[few]}; two dimensions or more expected, "
                "[1, 1] for a number, [units, 1] for one a unit"
            )
        states[seed] = {name: tensor.detach() for name, tensor in found.items()}
        first = next(iter(states.values()))
        if shapes != (expected := {name: [*tensor.shape] for name, tensor in first.items()}):
            raise UserError(
                f"{called} returns {shapes} for seed {seed}; {expected}, as for the first, expected"
            )
    return {name: torch.stack([states[seed][name] for seed in seeds]) for name in states[seeds[0]]}


def cross_entropy_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """d/dh_L of the cross-entropy summed over the minibatch: softmax(h_L) - y, (R, classes, n)."""
    return functional.softmax(logits, dim=1) - y
