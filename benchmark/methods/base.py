"""What every learning rule offers to the training loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from benchmark import provenance, streams
from benchmark.errors import UserError
from benchmark.network import FEEDBACK, Network, initial_weights, weight_count

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
    """As printed in Table 2."""
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
        for step in (Method.train_step, Method.pretrain_step):
            asked = inspect.signature(step)
            signature = inspect.signature(getattr(cls, step.__name__))
            try:
                signature.bind(*asked.parameters)
            except TypeError:
                raise TypeError(
                    f"{cls.__name__}.{step.__name__}{signature} found, {asked} expected"
                ) from None
        own = (kind for kind in cls.__mro__ if issubclass(kind, Method) and kind is not Method)
        cls.code = provenance.code_of(own)

    def part(self, replicas: slice) -> Self:
        """The same rule for some of the replicas, on the same weights in memory."""
        values = {name: getattr(self, name)[replicas] for name in self.hyperparameters}
        options = {name: getattr(self, name) for name in self.options}
        part = type(self)(self.network.part(replicas), values, options)
        part.state = MappingProxyType({name: tensor[replicas] for name, tensor in self.state.items()})
        return part

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and state, every one (R, ...)."""
        return {
            **self.network.state_dict(),
            **{f"state.{name}": tensor for name, tensor in self.state.items()},
        }

    def load_state_dict(self, values: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` has returned."""
        own = {f"state.{name}": tensor for name, tensor in self.state.items()}
        self.network.load_state_dict({name: tensor for name, tensor in values.items() if name not in own})
        for name, tensor in own.items():
            tensor.copy_(values[name])

    def refuse_hidden_state(self) -> None:
        """`UserError` if the rule keeps tensors that no checkpoint would have."""
        known = ("network", "state", *self.hyperparameters)
        for name, value in vars(self).items():
            if name not in known and any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                raise UserError(
                    f"{type(self).__name__} keeps tensors in self.{name}, which a checkpoint would lose; "
                    "put them into its `initial_state` and use self.state"
                )

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
        """
        return {}

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
        name: torch.as_tensor(value, dtype=dtype, device=device).expand(len(seeds)).reshape(-1, 1, 1)
        for name, value in hyperparameters.items()
    }
    built = method(network, values, options)
    state = {name: tensor.to(device) for name, tensor in _initial_state(method, dims, seeds, options).items()}
    built.state = MappingProxyType({n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()})
    built.refuse_hidden_state()
    return built


def _initial_state(
    method: type[Method], dims: Sequence[int], seeds: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Of all replicas, (R, ...); drawn on the CPU so every device starts alike."""
    states = {}
    for seed in dict.fromkeys(seeds):
        found = method.initial_state(dims, options, streams.generator(seed, "state"))
        if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
            raise UserError(f"{method.__name__}.initial_state returns {found!r}; tensors by name expected")
        states[seed] = found
    return {name: torch.stack([states[seed][name] for seed in seeds]) for name in states[seeds[0]]}


def cross_entropy_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """d/dh_L of the cross-entropy summed over the minibatch: softmax(h_L) - y, (R, classes, n)."""
    return functional.softmax(logits, dim=1) - y
