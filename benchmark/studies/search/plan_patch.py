"""A patch of a plan's file: one cell's hyperparameters, everything else byte for byte.

ruamel.yaml does not serve: its round trip keeps our plans, but changes other indents, spacing and line ends.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import yaml

from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.config import PROJECT, dump_yaml, merge, parse_yaml


def plan_patch(file: Path, row: str, column: str, entry: Mapping[str, Any]) -> str:
    """A unified diff that sets `rows.<row>.hyperparameters.<column>` of a plan's file to `entry`.

    `UserError` where the file is written so that this cell cannot be changed alone.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        before = stream.read()
    after = _with_cell(before, file, row, column, entry)
    inside = file.resolve().is_relative_to(PROJECT)
    name = file.resolve().relative_to(PROJECT).as_posix() if inside else file.name
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def write_entry(file: Path, row: str, column: str, entry: Mapping[str, Any]) -> None:
    """Set the same cell in the file itself. Several processes may do so at the same time."""
    with filelock.FileLock(f"{file}.lock"):
        text = file.read_text(encoding="utf-8")
        with atomic_file(file) as stream:
            stream.write(_with_cell(text, file, row, column, entry).encode())


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # `splitlines` knows more ends of a line than patch does


def _with_cell(text: str, file: Path, row: str, column: str, entry: Mapping[str, Any]) -> str:
    """The file's text with the cell set; what of its path is not there goes behind its last neighbour."""
    path = ["rows", row, "hyperparameters", column]
    refusal = UserError(
        f"{file}: {'.'.join(path)} cannot be changed alone in the way it is written (with an alias, for "
        "example); write the row's values out, a line a data set"
    )
    around, written, missing = _place(text, path)
    if around is None:
        raise refusal
    newline = "\r\n" if "\r\n" in text else "\n"
    if written is not None:
        start, end, new = written.start_mark.index, _end(text, written), _flow(entry)
        new = f" {new}" if start == end else new  # `mnist:`
    else:
        new = _flow(_nested(missing, entry))[1:-1]
        if not around.value:
            start = around.start_mark.index + 1
        elif around.flow_style:
            start, new = _end(text, around.value[-1][1]), f", {new}"
        else:
            start = (text + newline).index(newline, _end(text, around.value[-1][1]))  # behind a comment
            new = f"{newline}{' ' * around.value[-1][0].start_mark.column}{new}"
        end = start
    changed = text[:start] + new + text[end:]
    expected = merge(merge(parse_yaml(text, file), _nested(path, None)), _nested(path, entry))
    try:
        alone = parse_yaml(changed, file) == expected
    except UserError:
        alone = False
    if not alone:
        raise refusal
    return changed


def _place(text: str, path: list[str]) -> tuple[yaml.MappingNode | None, yaml.Node | None, list[str]]:
    """The innermost mapping on the path, what stands at the path's end, and what of the path is missing.

    No mapping where something else is in the way.
    """
    node, around = yaml.compose(text), None
    for depth, name in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            return None, None, []
        around = node
        node = next((value for key, value in around.value if key.value == name), None)
        if node is None:
            return around, None, path[depth:]
    return around, node, []


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    """`{path[0]: {path[1]: ... value}}`."""
    for name in reversed(path):
        value = {name: value}
    return value


def _flow(content: Mapping[str, Any]) -> str:
    """In one line, `{...}`."""
    return dump_yaml(dict(content), one_line=True).strip()


def _end(text: str, node: yaml.Node) -> int:
    """Where its text ends; PyYAML ends a block with what follows, comments included, or with a line's end."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    start = node.start_mark.index
    return start + len(text[start : node.end_mark.index].rstrip())
