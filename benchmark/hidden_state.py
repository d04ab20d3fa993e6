"""State that hides from checkpoints: what changes on a rule beside the tensors of its network and state."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Collection, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.errors import UserError

_VALUES = (
    bool, int, float, complex, str, bytes, NoneType, range, slice, enum.Enum, np.generic, torch.dtype,
    torch.device,
)  # fmt: skip
_CODE = (type, BuiltinFunctionType, MethodDescriptorType)
_LOST = (
    "which a checkpoint would lose; put what changes into its `initial_state` and use self.state, "
    "what is fixed into its `__init__`"
)
_UNSEEN = (
    "which a checkpoint would lose; allowed: numbers, strings, functions and collections of these, and "
    "what its `initial_state` puts into self.state"
)


class Snapshot:
    """What a learning rule holds at a time, to find what changes in it unseen.

    Weights in its network and its `state` are in every checkpoint, and these very tensors are trained where
    replicas train apart or as a CUDA graph: they change in place. All else on the rule and its network -
    numbers, strings, functions, collections of these, hyperparameters - stays as it is, and what could
    change without a trace is a `UserError`.
    """

    def __init__(
        self,
        rule: str,
        held: Mapping[str, object],
        *,
        trained: Collection[str],
        hyperparameters: Collection[str] = (),
    ) -> None:
        """Of what a rule of this name holds; `trained` is what in it has the weights and the state."""
        self._rule = rule
        self._trained = trained
        self._hyperparameters = hyperparameters
        self._before = self._contents(held)

    def refuse_changes(self, held: Mapping[str, object], when: str) -> None:
        """`UserError` if anything else is held by now."""
        now = self._contents(held)
        for place in dict.fromkeys([*self._before, *now]):
            if place not in self._before:
                raise UserError(f"{self._rule} keeps something new in {place}, {_LOST}")
            before, after = self._before[place], now.get(place)
            if isinstance(before, Tensor):
                if not _in_place(before, after):
                    raise UserError(
                        f"{self._rule} replaces {place} {when}; change tensors in place (`copy_`, `mul_`)"
                    )
            elif isinstance(after, Tensor) or before != after:
                raise UserError(f"{self._rule} changes {place} {when}, {_LOST}")

    def _contents(self, held: Mapping[str, object]) -> dict[str, Any]:
        """What stands where: of a tensor its memory, of a number its value."""
        found: dict[str, Any] = {}
        for name, value in held.items():
            if name in self._hyperparameters and isinstance(value, Tensor):
                found[f"self.{name}"] = (value.dtype, value.tolist())
            else:
                found.update(self._walk(f"self.{name}", value, name in self._trained))
        return found

    def _walk(self, place: str, value: object, trained: bool) -> Iterator[tuple[str, Any]]:
        parts: Mapping[str, object] = {}
        if isinstance(value, _VALUES):
            yield place, (type(value), repr(value))  # as nan is not nan
        elif isinstance(value, _CODE):
            yield place, value
        elif isinstance(value, FunctionType):
            yield place, value
            captured = inspect.getclosurevars(value).nonlocals
            parts = {f"({name})": part for name, part in captured.items() if part is not value}
        elif isinstance(value, Mapping):
            parts = {f"[{key!r}]": part for key, part in value.items()}
        elif isinstance(value, list | tuple | set | frozenset):
            parts = {f"[{number}]": part for number, part in enumerate(value)}
        elif trained and isinstance(value, Tensor):
            yield place, value.detach()  # which keeps its memory from being given to another
            named = {name: part for name, part in vars(value).items() if not name.startswith("_")}  # torch's
            parts = {f".{name}": part for name, part in {**named, "grad": value.grad}.items()}
        elif trained and isinstance(value, nn.Module):
            yield place, value
            registers = (value._parameters, value._buffers, value._modules)
            named = {n: part for n, part in vars(value).items() if not any(part is r for r in registers)}
            parts = {f".{n}": part for group in (named, *registers) for n, part in group.items()}
        else:
            what = "a tensor" if isinstance(value, Tensor) else f"an object ({type(value).__name__})"
            raise UserError(f"{self._rule} keeps {what} in {place}, {_UNSEEN}")
        for name, part in parts.items():
            yield from self._walk(f"{place}{name}", part, trained)


def _in_place(before: Tensor, after: object) -> bool:
    if not isinstance(after, Tensor):
        return False
    places = [(tensor.data_ptr(), tensor.shape, tensor.dtype) for tensor in (before, after)]
    return places[0] == places[1]
