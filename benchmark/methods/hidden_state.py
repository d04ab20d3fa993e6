"""State that hides from checkpoints: what changes on a rule beside the tensors of its network and state."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.common.errors import UserError
from benchmark.methods.network import as_written

_VALUES = (
    bool, int, float, complex, str, bytes, NoneType, range, slice, enum.Enum, np.generic, torch.dtype,
    torch.device,
)  # fmt: skip
_CODE = (type, BuiltinFunctionType, MethodDescriptorType, np.ufunc)
LOST = (
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
        """`UserError` if anything else is held by now; `when` says when that has changed, and what to do."""
        now = self._contents(held)
        for place in dict.fromkeys([*self._before, *now]):
            before, after, written = self._before.get(place), now.get(place), as_written(place)
            if isinstance(before, Tensor) and isinstance(after, Tensor):
                if not _in_place(before, after):
                    raise UserError(
                        f"{self._rule} replaces {written}; change tensors in place (`copy_`, `mul_`)"
                    )
            elif isinstance(before, Tensor) or isinstance(after, Tensor) or before != after:
                changes = "changes" if place in self._before else "keeps something new in"
                raise UserError(f"{self._rule} {changes} {written} {when}")

    def _contents(self, held: Mapping[str, object]) -> dict[str, Any]:
        """What stands where: of a tensor its memory, of a number its value."""
        found: dict[str, Any] = {}
        for name, value in held.items():
            place = f"self.{name}"
            if name in self._hyperparameters and isinstance(value, Tensor):
                found[place] = (value.dtype, None if value.is_meta else value.tolist())
                found.update(self._walk(f"{place} (attributes)", vars(value), False, ()))
            else:
                found.update(self._walk(place, value, name in self._trained, ()))
        return found

    def _walk(
        self, place: str, value: object, trained: bool, above: tuple[int, ...]
    ) -> Iterator[tuple[str, Any]]:
        if id(value) in above:
            return
        parts: Mapping[str, object] = {}
        if isinstance(value, _VALUES):
            yield place, (type(value), repr(value))  # as nan is not nan
        elif isinstance(value, _CODE) and _is_bound_to_nothing(value):
            yield place, value
        elif isinstance(value, FunctionType):
            yield place, value
            parts = _kept_by(value)
        elif isinstance(value, partial):
            parts = {"(function)": value.func, "(arguments)": [value.args, value.keywords]}
        elif isinstance(value, Mapping):
            yield place, [repr(key) for key in value]
            parts = {f"[{key!r}]": part for key, part in value.items()}
        elif isinstance(value, list | tuple | set | frozenset):
            yield place, (type(value), len(value))
            parts = {f"[{number}]": part for number, part in enumerate(value)}
        elif trained and isinstance(value, Tensor):
            yield place, value.detach()  # which keeps its memory from being given to another
            named = {n: part for n, part in vars(value).items() if not n.startswith("_dynamo")}
            parts = {f".{n}": part for n, part in {**named, "grad": value.grad}.items()}
        elif trained and isinstance(value, nn.Module):
            yield place, value
            registers = (value._parameters, value._buffers, value._modules)
            named = {n: part for n, part in vars(value).items() if not any(part is r for r in registers)}
            parts = {f".{n}": part for group in (named, *registers) for n, part in group.items()}
        else:
            what = "a tensor" if isinstance(value, Tensor) else f"an object ({type(value).__name__})"
            raise UserError(f"{self._rule} keeps {what} in {as_written(place)}, {_UNSEEN}")
        for name, part in parts.items():
            yield from self._walk(f"{place}{name}", part, trained, (*above, id(value)))


def _in_place(before: Tensor, after: Tensor) -> bool:
    one, other = ((t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (before, after))
    return one == other


def _is_bound_to_nothing(code: object) -> bool:
    """Unlike `some_list.append`; `torch.tanh` is bound to a module, so to speak."""
    return isinstance(getattr(code, "__self__", None), NoneType | ModuleType | type)


def _kept_by(function: FunctionType) -> dict[str, object]:
    """Variables that a function has captured, its defaults, its attributes."""
    kept: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty one
            kept[f"({name})"] = cell.cell_contents
    kept["(defaults)"] = [function.__defaults__, function.__kwdefaults__]
    return kept | {f".{name}": value for name, value in vars(function).items()}
