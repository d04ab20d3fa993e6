"""Commands import only the libraries that they use, so that they start at once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.app import ALIASES, COMMANDS, app
from benchmark.common.files import PROJECT, RESULTS

PROGRAM = """
import json, sys
from benchmark.__main__ import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def imported(*arguments: str) -> set[str]:
    """The top-level packages that a command has imported when it ends."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_needs_no_library_that_computes(arguments: list[str]) -> None:
    assert not imported(*arguments) & {"torch", "pandas", "optuna", "matplotlib", "seaborn", "scipy"}


@pytest.mark.parametrize("arguments", [["status", "table2"], ["report", "table2"]])
def test_status_and_table2_need_no_torch(tmp_path: Path, arguments: list[str]) -> None:
    copy = tmp_path / "results"
    shutil.copytree(RESULTS / "runs", copy / "runs")
    assert not imported(*arguments, "--results", str(copy)) & {"torch", "optuna", "matplotlib", "seaborn"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app([name, "--help"], standalone_mode=False) in (None, 0)
    assert f"{name} [OPTIONS]" in capsys.readouterr().out


def test_aliases_are_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    app(["--help"], standalone_mode=False)
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in COMMANDS)
    assert not any(f" {name} " in listed.replace("missing of a plan", "") for name in ALIASES)
