"""The code is formatted, lint-free and typed; `./reproduce.sh test` is the only command CI needs."""

import subprocess
import sys

import pytest

from benchmark.config import PROJECT


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_clean(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
