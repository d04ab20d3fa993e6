"""YAML files as checked models: reading, merging, and one-line errors that say where and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from benchmark.common.errors import UserError
from benchmark.common.files import read_text

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / "paper_configs"

Model = TypeVar("Model", bound="Strict")
Value = TypeVar("Value")


class Strict(BaseModel):
    """A mapping of a YAML file: no other keys, no other types."""

    # YAML's 1.5 or "5" is no number of epochs, and "yes" no number at all.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    resolved: ClassVar[tuple[str, ...]] = ()
    """Keys that a file may hold, too, and that are gone before the model is made."""


class _UniqueKeys(yaml.constructor.SafeConstructor):
    """PyYAML keeps the last of two equal keys without a word; here that is an error."""

    def get_single_data(self) -> Any:
        self.deep_construct = True  # an alias inside its own anchor is an error, not a cycle
        return super().get_single_data()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Loader(_UniqueKeys, yaml.SafeLoader):
    """Says what it cannot read."""


class _FastLoader(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Six times as fast, by libyaml where PyYAML has it; says less, and dies of 30,000 nested lists."""


class _Dumper(yaml.SafeDumper):
    """Quotes what `read_yaml` would take for a number."""


# YAML 1.1 reads 1e-3 as text; everybody else as a number. The two must agree: a run's key may look like one.
for _style in (_Loader, _FastLoader, _Dumper):
    _style.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def dump_yaml(content: Any, *, one_line: bool = False) -> str:
    """`content` as YAML that `read_yaml` reads back as it was."""
    style: dict[str, Any] = {"default_flow_style": True, "width": 10**6} if one_line else {}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)


def read_yaml(file: Path) -> Any:
    """The content of a YAML file; `UserError` names file and line."""
    return parse_yaml(read_text(file), file)


def read_dumped(file: Path) -> Any:
    """What `dump_yaml` has written to a file, faster than `read_yaml`; `UserError` names file and line."""
    text = read_text(file)
    with suppress(Exception):
        return yaml.load(text, _FastLoader)
    return parse_yaml(text, file)


def parse_yaml(text: str, file: Path) -> Any:
    """The content of a file with this text; `UserError` names file and line."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # PyYAML lets through what its constructors raise
        message = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise UserError(f"{file}: not valid YAML: {message}") from None


def read_mapping(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if content is None:
        raise UserError(f"{file}: the file is empty")
    if not isinstance(content, dict):
        raise UserError(f"{file}: a mapping expected, {type(content).__name__} found")
    return content


def _keys(kind: Any, path: Sequence[str | int]) -> str:
    """What a model, or one below it at the end of `path`, may hold; empty where that is not fixed."""
    for step in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(step)].annotation
        elif get_origin(kind) in (dict, list):
            kind = get_args(kind)[-1]
        else:  # one of several models, which pydantic calls by their `kind`
            kinds = [model for model in get_args(kind) if hasattr(model, "model_fields")]
            named = {get_args(model.model_fields["kind"].annotation): model for model in kinds}
            kind = named.get((step,))
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return ""
    return ", ".join([*getattr(kind, "resolved", ()), *kind.model_fields])


def _message(kind: type[BaseModel], problem: ErrorDetails) -> str:
    """Say what was found and what is allowed."""
    if problem["type"] == "missing":
        return "this key is required"
    if problem["type"] == "extra_forbidden":
        allowed = _keys(kind, problem["loc"][:-1])
        return f"unknown key{', allowed: ' if allowed else ''}{allowed}"
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{problem['input']!r} found; input should be a mapping"
    return f"{problem['input']!r} found; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _one_line(kind: type[BaseModel], file: Path, error: ValidationError, above: Sequence[str]) -> UserError:
    """Join `path: message` for the first problems. Unknown keys come first, because one may be misspelt."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    lines = []
    for problem in problems[:3]:
        path = ".".join(map(str, [*above, *problem["loc"]]))
        lines.append(f"{path}: {_message(kind, problem)}".removeprefix(": "))
    if len(problems) > 3:
        lines.append(f"and {len(problems) - 3} more")
    return UserError(f"{file}: {' '.join('; '.join(lines).split())}")


def merge(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `delta` on top: mappings merge key by key, null removes, anything else replaces."""
    merged = dict(base)
    for key, value in delta.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def removes_nothing(base: Mapping[str, Any], delta: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The nulls of `delta` that `merge` finds nothing for: key path, and the keys that are there instead."""
    found = []
    for key, value in delta.items():
        if value is None and key not in base:
            found.append((str(key), [str(name) for name in base]))
        elif isinstance(value, Mapping):
            below = base.get(key)
            nested = removes_nothing(below if isinstance(below, Mapping) else {}, value)
            found += [(f"{key}.{path}", there) for path, there in nested]
    return found


def validated(kind: type[Model], content: Any, file: Path, *above: str) -> Model:
    """`content`, found in the file below the keys `above`, as a model."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise _one_line(kind, file, error, above) from None


def distinct(values: list[Value]) -> list[Value]:
    """`values`, of which none may stand twice; for pydantic's `AfterValidator`."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{value!r} stands twice")
    return values


Names = Annotated[list[str], Field(min_length=1), AfterValidator(distinct)]
"""Of rows or data sets."""


def load_each(kind: type[Model], file: Path) -> dict[str, Model]:
    """A file's entries by name."""
    return {str(name): validated(kind, entry, file, str(name)) for name, entry in read_mapping(file).items()}
