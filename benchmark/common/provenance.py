"""Where and with what a run was made; no user or host names."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy
import torch

import benchmark


def device_name(device: torch.device) -> str:
    """The model of the processor that trains."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"


@cache
def git_commit() -> str:
    """The commit of the code that runs, with `+changes` where the package differs from it."""
    folder = Path(benchmark.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def code_of(kinds: Iterable[type]) -> str:
    """A short hash of the files that define these classes; empty where one is in no file.

    Comments and docstrings aside. It begins with the version of Python, which writes code out in its own way.
    """
    try:
        files = [inspect.getfile(kind) for kind in kinds]
        text = "".join(_code(file) for file in dict.fromkeys(files))
    except (OSError, TypeError, ValueError, SyntaxError):
        return ""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{version}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@cache
def _code(file: str) -> str:
    """The code in a file as it was when first asked for, however it is laid out and explained."""
    tree = ast.parse(Path(file).read_bytes())
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            texts = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
            node.body = [n for n in body if n not in texts] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {
        "benchmark": benchmark.__version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }
