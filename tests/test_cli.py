"""The commands: what they print, and that every mistake is one line and a nonzero status."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark import cli, sweep
from benchmark.config import PROJECT

MINI = "fashion-mnist-mini"
PLAN = f"""
title: Tiny
comparable: false
protocol: {{epochs: 1, batch_size: 512, seeds: [1, 2], source: guess}}
networks:
  1x8: {{hidden_layers: 1, width: 8, source: guess}}
columns:
  {MINI}: {{network: 1x8}}
rows:
  BP:
    method: BP
    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}
  FA:
    method: FA
    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m benchmark` in an empty folder: exit status, stdout, stderr. A traceback raises."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "tiny.yaml").write_text(PLAN)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *capsys.readouterr())

    return call


RUN = ("run", "tiny.yaml", "--device", "cpu", "--results", "results")


def fails(result: tuple[int, str, str]) -> str:
    """Asserts one line on stderr and a nonzero status; returns the line."""
    code, _, err = result
    assert code not in (0, None)
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def store(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_run_status_report(command: Command, tmp_path: Path) -> None:
    code, out, err = command("status", "tiny.yaml", "--results", "results")
    assert (code, err) == (0, "")
    assert out.count("missing") == 2
    assert not (tmp_path / "results").exists()
    code, out, err = command(*RUN, "--report")
    assert (code, err) == (0, "")
    assert "6000 + 1000 images" in out
    assert out.count("over 2 seeds") >= 2
    code, out, err = command("status", "tiny.yaml", "--results", "results")
    assert (code, err) == (0, "")
    assert out.count("stored") == 2
    assert "store intact: 2 complete runs" in out
    before = store(tmp_path / "results")
    assert {"tables/tiny.md", "tables/tiny.csv", "tables/tiny.tex"} <= set(before)
    code, out, _ = command(*RUN, "--report")
    assert code == 0
    assert "images" not in out
    assert store(tmp_path / "results") == before


def test_plan_estimates(command: Command) -> None:
    code, out, err = command("plan", "tiny.yaml", "--results", "results", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "time left: about" in out
    code, out, _ = command(
        "plan", "tiny.yaml", "--results", "results", "--method", "bp,FA", "--dataset", MINI
    )
    assert code == 0
    assert out.count("missing") == 2


def test_other_protocols_have_tables_of_their_own(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--report")[0] == 0
    before = store(tmp_path / "results")
    assert command(*RUN, "--report", "--seeds", "3,4")[0] == 0
    assert command(*RUN, "--report", "--epochs", "2", "--method", "FA")[0] == 0
    assert command("report", "tiny.yaml", "--results", "results", "--seeds", "1-300")[0] == 0
    after = store(tmp_path / "results")
    assert {name: after[name] for name in before} == before
    assert {"tables/tiny-seeds-3-4.md", "tables/tiny-2-epochs.md"} <= set(after)
    assert sum(name.endswith(".md") for name in after) == 4
    _, out, _ = command("status", "tiny.yaml", "--results", "results", "--epochs", "3")
    assert out.count("stale") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "unknown"], "allowed: quick, table2"),
        (["status", ""], "unknown plan"),
        (["status", "missing.yaml"], "no such file"),
        (["status", "."], "unknown plan"),
        (["status", "datasets"], "datasets.yaml"),
        (["bogus"], "bogus"),
        (["run"], "PLAN"),
        (["run", "tiny.yaml", "--bogus"], "--bogus"),
        (["run", "tiny.yaml", "more"], "more"),
        (["run", "tiny.yaml", "--epochs"], "--epochs"),
        *(([*RUN, *more], words) for more, words in (
            (["--method", "unknown"], "--method: 'unknown' found, allowed: BP, FA"),
            (["--method", ""], "--method: ''"),
            (["--method", "BP,"], "--method: ''"),
            (["--dataset", "mnist"], "--dataset: 'mnist' found, allowed: fashion-mnist-mini"),
            (["--device", "bogus"], "--device: 'bogus'"),
            (["--device", "meta"], "--device: 'meta'"),
            (["--device", "cuda:99"], "--device: 'cuda:99'"),
            (["--device", ""], "--device: ''"),
            (["--seeds", "0-"], "--seeds: '0-'"),
            (["--seeds", "a"], "--seeds: 'a'"),
            (["--seeds", "1,1"], "--seeds: '1,1'"),
            (["--seeds", "1-3,2"], "--seeds: '1-3,2'"),
            (["--seeds", ""], "--seeds: ''"),
            (["--seeds", "1,"], "--seeds: '1,'"),
            (["--seeds", "-1"], "--seeds: '-1'"),
            (["--seeds", "3-1"], "--seeds: '3-1'"),
            (["--seeds", "1.5"], "--seeds: '1.5'"),
            (["--seeds", "²"], "--seeds: '²'"),
            (["--seeds", "1-100000000"], "--seeds: '1-100000000'"),
            (["--epochs", "0"], "--epochs: 0"),
            (["--epochs", "-1"], "--epochs: -1"),
            (["--epochs", "x"], "--epochs"),
            (["--epochs", "1.5"], "--epochs"),
            (["--data-root", "missing"], "--data-root: missing is not a folder"),
            (["--data-root", "tiny.yaml"], "--data-root: tiny.yaml is not a folder"),
            (["--results", "tiny.yaml"], "--results: tiny.yaml is not a folder"),
        )),
        (["run", "quick", "--results", "tiny.yaml"], "--results: tiny.yaml is not a folder"),
        (["report", "quick", "--results", "tiny.yaml"], "--results: tiny.yaml is not a folder"),
        ([*RUN[:4], "--results", "tiny.yaml/below"], "results folder tiny.yaml/below"),
        (["report", "tiny.yaml", "--results", "tiny.yaml/below"], "tiny.yaml/below"),
        (["replay", "missing.npz"], "missing.npz"),
        (["replay", "tiny.yaml"], "tiny.yaml"),
        (["replay", "."], "."),
        (["replay"], "FILE"),
        (["replay", "missing.npz", "--tolerance", "-1"], "--tolerance: -1"),
        (["replay", "missing.npz", "--tolerance", "nan"], "--tolerance: nan"),
    ],
    ids=repr,
)  # fmt: skip
def test_mistakes(command: Command, tmp_path: Path, arguments: list[str], words: str) -> None:
    assert words in fails(command(*arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_without_a_command_it_helps(command: Command) -> None:
    _, out, err = command()
    assert "Usage" in out
    assert err == ""


def test_replay_above_tolerance(command: Command, tmp_path: Path) -> None:
    trace = str(PROJECT / "tests" / "reference_traces" / "bp.npz")
    code, out, err = command("replay", trace, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "equal" in out
    assert "deviation above 0" in fails(command("replay", trace, "--device", "cpu", "--tolerance", "0"))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert "other.npz" in fails(command("replay", "other.npz"))


def test_no_data_and_no_network(command: Command, tmp_path: Path) -> None:
    arguments = ("run", "table2", "--method", "BP", "--epochs", "1", "--seeds", "1", "--results", "results")
    line = fails(command(*arguments, "--dataset", "cifar-10"))
    assert "data set cifar-10 not found; looked at data/cifar-10-batches-py" in line
    assert "--data-root" in line
    line = fails(command(*arguments, "--dataset", "cifar-10-jpeg", "--device", "cpu"))
    assert "cifar-10-jpeg not found" in line
    assert not list(tmp_path.glob("results/runs/*/*"))


def test_a_column_that_fails_does_not_stop_the_others(command: Command, tmp_path: Path) -> None:
    text = PLAN.replace(
        f"  {MINI}: {{network: 1x8}}", f"  cifar-10: {{network: 1x8}}\n  {MINI}: {{network: 1x8}}"
    )
    text = text.replace(f"{{{MINI}: {{lr: 0.1", f"{{cifar-10: {{lr: 0.1, source: guess}}, {MINI}: {{lr: 0.1")
    (tmp_path / "tiny.yaml").write_text(text)
    assert "1 of 2 data sets not trained: data set cifar-10 not found" in fails(command(*RUN))
    assert len(list(tmp_path.glob("results/runs/*/*"))) == 2


def test_damaged_store(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--method", "BP")[0] == 0
    (folder,) = (tmp_path / "results").glob("runs/*/*")
    for name, damage in (("epochs.csv", "1,1,0,0,False\n"), ("run.yaml", "a: [")):
        whole = (folder / name).read_bytes()
        with open(folder / name, "a") as stream:
            stream.write(damage)
        before = store(tmp_path / "results")
        for arguments in (["status", *RUN[1:2]], ["report", *RUN[1:2]], ["run", *RUN[1:2], "--report"]):
            assert name in fails(command(*arguments, "--results", "results"))
        assert store(tmp_path / "results") == before
        (folder / name).write_bytes(whole)
    (folder / "epochs.csv").unlink()
    assert "epochs.csv" in fails(command("status", "tiny.yaml", "--results", "results"))
    assert "epochs.csv" in fails(command(*RUN))
    assert not (folder / "epochs.csv").exists()


def test_damaged_checkpoint(command: Command, tmp_path: Path) -> None:
    from benchmark.options import Selection

    chosen = Selection("tiny.yaml", None, ["BP"], None, None, Path("results"))
    (found,) = chosen.statuses()
    file = Path("results/partial") / found.run.key / "checkpoint.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    for arguments in (RUN, ("status", "tiny.yaml", "--results", "results")):
        assert f"{file} is damaged" in fails(command(*arguments))
    assert file.read_bytes() == b"damaged"


def test_partial_runs_never_reach_a_table(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CHECKPOINT_SECONDS", 0.0)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("benchmark.results.Store.commit", full)
        assert "No space left on device" in fails(command(*RUN, "--method", "BP"))
    _, out, _ = command("status", "tiny.yaml", "--results", "results")
    assert "1 of 1 epochs" in out
    assert command("report", "tiny.yaml", "--results", "results")[0] == 0
    assert "n=" not in (tmp_path / "results/tables/tiny.md").read_text()
    assert command(*RUN, "--method", "BP")[0] == 0
    _, out, _ = command("status", "tiny.yaml", "--results", "results")
    assert "stored" in out


def test_diverged_seeds_are_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PLAN.replace("lr: 0.1", "lr: 1.0e+38", 1))
    code, out, _ = command(*RUN, "--report")
    assert code == 0
    assert "n=2, 2 diverged" in out
    assert "n=2, 2 diverged" in (tmp_path / "results/tables/tiny.md").read_text()
    assert "2 diverged" in (tmp_path / "results/tables/tiny.tex").read_text()


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
        assert "is being trained by another process" in fails(command(*RUN, "--method", "BP"))
    finally:
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert err == "interrupted; the same command continues\n"


def test_duration() -> None:
    assert [cli.duration(seconds) for seconds in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]
