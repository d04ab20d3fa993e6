"""Ctrl-C, and a batch system's signal: one line, and a status that says which."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import INTERRUPTED
from benchmark.config import PROJECT
from benchmark.sweep import execute as executor
from tests.helpers.commands import MINI, PLAN, RUN, Command, fails


def test_two_processes_and_an_interrupt(command: Command, tmp_path: Path) -> None:
    """A run under way turns a second process away; Ctrl-C says how to go on."""
    (tmp_path / "tiny.yaml").write_text(PLAN.replace("epochs: 1", "epochs: 100000"))
    first = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *RUN, "--method", "BP"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        waited = 0.0
        while not list(tmp_path.glob("results/partial/*/lock")):
            assert waited < 60
            time.sleep(0.2)
            waited += 0.2
        time.sleep(0.2)
        assert f"(BP on {MINI}) is being trained by another process; wait" in fails(
            command(*RUN, "--method", "BP")
        )
    finally:
        first.send_signal(signal.SIGINT)
        try:
            _, err = first.communicate(timeout=30)
        finally:
            first.kill()
    assert first.returncode == 130
    assert err == INTERRUPTED + "\n"


def test_a_batch_systems_signal_is_like_ctrl_c(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminated(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr(executor, "train", terminated)
        code, _, err = command(*RUN)
    assert (code, err) == (128 + signal.SIGTERM, INTERRUPTED + "\n")
    assert signal.getsignal(signal.SIGTERM) is before
    assert command(*RUN)[0] == 0


INTERRUPTS = pytest.mark.parametrize(
    "interrupt",
    # The second as where Ctrl-C meets a dataclass being made, after which Python would end by the signal.
    ["raise KeyboardInterrupt", 'exec("raise KeyboardInterrupt")'],
)


def interrupted(tmp_path: Path, program: str) -> None:
    (tmp_path / "impatient.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    asked = [sys.executable, "-m", "impatient"]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, INTERRUPTED + "\n")


@INTERRUPTS
def test_ctrl_c_while_a_command_runs(tmp_path: Path, interrupt: str) -> None:
    program = f"""
import typer
from benchmark.cli.options import run_app
app = typer.Typer()
@app.command()
def command():
    {interrupt}
run_app(app)
"""
    interrupted(tmp_path, program)


@INTERRUPTS
def test_ctrl_c_while_starting(tmp_path: Path, interrupt: str) -> None:
    """Importing torch takes seconds, in which people change their minds."""
    program = f"""
import runpy, sys
class Impatient:
    def find_spec(self, name, *rest):
        if name == "benchmark.cli.app":
            {interrupt}
sys.meta_path.insert(0, Impatient())
runpy.run_module("benchmark", run_name="__main__")
"""
    interrupted(tmp_path, program)
