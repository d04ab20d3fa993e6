"""What a learning rule declares and defines. Rules are built in `benchmark/engine/build.py`."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeAlias,
    Union,
    get_args,
    get_origin,
)

from benchmark.common.errors import UserError
from benchmark.methods.sizes import weight_count

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from benchmark.methods.network import Network

Hyperparameter = Annotated["Tensor", "hyperparameter"]
"""A positive number that the plan gives for every replica: in a step a tensor (R, 1, 1)."""
Noise: TypeAlias = "Callable[[Tensor], Tensor]"
"""Called with an activation (R, features, n): fresh Normal(0, 1) numbers of its shape."""


class Method:
    """A learning rule. One instance trains the `R` replicas of one `Network`.

    You must define
        name            the name that a plan uses, `method: DTP`
        train_step      one iteration: update the weights, return the logits

    You may declare, each by an annotated attribute of the class
        lr: Hyperparameter          a positive number that the plan must give; in a step `self.lr`, (R, 1, 1)
        decay: bool = True          an option with its default, the same for all replicas: bool, int, float,
                                    str, Literal["a", "b"], or a union. A plan may give another value.

    You may define
        version             raise it when a change to the rule changes its numbers (default: 1)
        feedback            what the backward path holds: "none", "decoders" or "alignment" (see `Network`)
        learns_feedback     whether training changes it
        initial_state       tensors that a rule keeps between minibatches beside the weights
        pretraining_epochs  epochs of `pretrain_step` before training; define both

    A rule draws random numbers from `noise` and `draw` alone, changes weights and `self.state` in place, and
    keeps nothing else. `benchmark.check_method(MyRule)` checks this.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    feedback: ClassVar[str] = "none"
    learns_feedback: ClassVar[bool] = False
    normalises_output: ClassVar[bool] = False
    """Whether the option `batch_norm` applies to the output layer, too."""

    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """The names of the declared hyperparameters, those of base classes first."""
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """The declared options with their defaults, those of base classes first."""
    option_types: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    network: Network
    state: Mapping[str, Tensor]
    """The tensors of `initial_state`, stacked to (R, ...). Change them in place."""
    pretraining: int
    """Epochs of pre-training."""

    def __init__(
        self, network: Network, hyperparameters: Mapping[str, Tensor], options: Mapping[str, Any]
    ) -> None:
        self.network = network
        self.state = MappingProxyType({})
        self.pretraining = self.pretraining_epochs({**self.options, **options})
        for name in self.hyperparameters:
            setattr(self, name, hyperparameters[name])
        for name in self.options:
            setattr(self, name, options.get(name, self.options[name]))

    def __init_subclass__(cls) -> None:
        """Collect the declared hyperparameters and options."""
        super().__init_subclass__()
        for attribute in ("hyperparameters", "options"):
            if attribute in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{attribute}: declare each by an annotation instead, "
                    "`lr: Hyperparameter` or `decay: bool = True`"
                )
        if "name" in vars(cls) and cls.train_step is Method.train_step:
            raise TypeError(f"{cls.__name__} defines no train_step(self, x, y, noise)")
        bases = [base for base in reversed(cls.__mro__) if issubclass(base, Method) and base is not Method]
        declared = {
            name: kind
            for base in bases
            for name, kind in inspect.get_annotations(base, eval_str=True).items()
            if name not in Method.__annotations__ and ClassVar not in (kind, get_origin(kind))
        }
        cls.hyperparameters = tuple(name for name, kind in declared.items() if kind == Hyperparameter)
        cls.option_types = {
            name: kind for name, kind in declared.items() if kind != Hyperparameter and hasattr(cls, name)
        }
        cls.options = {name: getattr(cls, name) for name in cls.option_types}

    @classmethod
    def check_options(cls, options: Mapping[str, Any], place: str) -> None:
        """`ValueError` if the plan gives at `place` an unknown option, or one of another type."""
        for name, value in options.items():
            if name not in cls.options:
                raise ValueError(f"{place}.{name}: {cls.name} takes {', '.join(cls.options) or 'none'}")
            kind = cls.option_types[name]
            if not _allows(kind, value):
                raise ValueError(f"{place}.{name}: {value!r} found, {_described(kind)} expected")

    def part(self, replicas: slice) -> Self:
        """The same rule for some of the replicas, on the same weights and state in memory."""
        part = copy.copy(self)
        part.network = self.network.part(replicas)
        part.state = MappingProxyType({name: tensor[replicas] for name, tensor in self.state.items()})
        for name in self.hyperparameters:
            setattr(part, name, getattr(self, name)[replicas])
        return part

    def state_dict(self) -> dict[str, Tensor]:
        """The weights and the rule's own state, each with the replica axis in front."""
        return {
            **self.network.state_dict(),
            **{f"state.{name}": tensor for name, tensor in self.state.items()},
        }

    def load_state_dict(self, values: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` returned. `UserError` if the rule had another state then."""
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
        """Where the rule's networks are normalised: `hidden_norm`, `output_norm`."""
        batch_norm = options.get("batch_norm", False)
        return {"hidden_norm": batch_norm, "output_norm": batch_norm and cls.normalises_output}

    @classmethod
    def pretraining_epochs(cls, options: Mapping[str, Any]) -> int:
        """Number of epochs of `pretrain_step` before epoch 1."""
        return 0

    @classmethod
    def initial_state(
        cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
    ) -> dict[str, Tensor]:
        """The state of one replica of widths `dims` at the start.

        For example `{"velocity": torch.zeros(dims[1], dims[0])}`, in a step `self.state["velocity"]`,
        (R, ...). Draw random numbers from `draw`, the seed's own generator. Give every tensor two dimensions
        or more, so that replicas stay apart: `torch.zeros(1, 1)` for a counter, `torch.zeros(dims[1], 1)` for
        a number a unit.
        """
        return {}

    @classmethod
    def trained_weights(cls, dims: Sequence[int]) -> int:
        """Number of weights that learning changes in one replica. No decoder leads to the input."""
        return weight_count(dims) + (weight_count(dims[1:]) if cls.learns_feedback else 0)

    def pretrain_step(self, x: Tensor, noise: Noise) -> None:
        """One update on a minibatch `x` (R, in, n) before training begins."""
        raise NotImplementedError(f"{self.name} has no pre-training")

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """One iteration on a minibatch: `x` (R, in, n), one-hot `y` (R, classes, n).

        Return the logits (R, classes, n) of the forward pass that the update starts from.
        """
        raise NotImplementedError


def _allows(kind: Any, value: Any) -> bool:
    """Whether an option annotated with `kind` may have this value. Numbers must be positive."""
    if get_origin(kind) in (Union, UnionType):
        return any(_allows(member, value) for member in get_args(kind))
    if get_origin(kind) is Literal:
        return any(type(value) is type(allowed) and value == allowed for allowed in get_args(kind))
    return type(value) is kind and (kind not in (int, float) or 0 < value < math.inf)


def _described(kind: Any) -> str:
    """What `_allows` takes, for an error message."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_described, get_args(kind)))
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    numbers = {int: "int greater than 0", float: "finite float greater than 0"}
    return numbers.get(kind, kind.__name__)


def cross_entropy_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """d/dh_L of the cross-entropy summed over the minibatch: softmax(h_L) - y, (R, classes, n)."""
    return logits.softmax(dim=1) - y
