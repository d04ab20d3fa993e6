"""Format, lint, types and the order of the rooms; `./reproduce.sh test` is the only command CI needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.config import PROJECT


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=" ".join,
)
def test_clean(command: list[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    result = subprocess.run([program, *command[1:]], cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
