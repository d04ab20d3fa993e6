"""The commands: what they print, and that every mistake is one line and a nonzero status."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmark import cli, datasets, executor, options, sweep
from benchmark.config import CONFIGS, PROJECT, DatasetConfig
from benchmark.errors import INTERRUPTED, DataNotFound, UserError
from benchmark.methods.bp import BP
from benchmark.methods.fa import FA
from benchmark.options import RESULTS, Selection
from benchmark.report import contents
from benchmark.results import EPOCH_COLUMNS
from tests.made_up import record_of

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
    assert "--results: results does not exist" in fails(
        command("status", "tiny.yaml", "--results", "results")
    )
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").mkdir()
    code, out, err = command("status", "tiny.yaml", "--results", "results")
    assert (code, err) == (0, "")
    assert "of these: 2 missing\n" in out
    code, out, err = command(*RUN, "--report")
    assert (code, err) == (0, "")
    assert "6000 + 1000 images" in out
    assert out.count("over 2 seeds") >= 2
    code, out, err = command("status", "tiny.yaml", "--results", "results")
    assert (code, err) == (0, "")
    assert "of these: 2 stored\nstore intact: 2 complete runs in all\n" in out
    before = store(tmp_path / "results")
    assert {"tables/tiny.md", "tables/tiny.csv", "tables/tiny.tex"} <= set(before)
    code, out, _ = command(*RUN, "--report")
    assert code == 0
    assert "images" not in out
    assert "2 rows stored, nothing to train" in out
    assert store(tmp_path / "results") == before


def test_plan_estimates(command: Command) -> None:
    code, out, err = command("plan", "tiny.yaml", "--results", "results", "--device", "cpu")
    assert (code, err) == (0, "")
    assert f"\ntiming FA on {MINI}\n" in out
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
    assert command(*RUN, "--report", "--seeds", "1-40", "--method", "BP")[0] == 0
    after = store(tmp_path / "results")
    assert {name: after[name] for name in before} == before
    assert {"tables/tiny-seeds-3-4.md", "tables/tiny-2-epochs.md"} <= set(after)
    assert sum(name.endswith(".md") for name in after) == 4
    status = ("status", "tiny.yaml", "--results", "results")
    _, out, _ = command(*status, "--epochs", "3")
    assert "of these: 2 missing\n" in out
    (tmp_path / "tiny.yaml").write_text(PLAN.replace("lr: 0.1", "lr: 0.2"))
    _, out, _ = command(*status)
    assert "of these: 2 stale\n" in out


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
            (["--epochs", "9" * 20], "must be from 1 to 1000000"),
            (["--epochs", "x"], "--epochs"),
            (["--epochs", "1.5"], "--epochs"),
            (["--precision", "tf32", "--device", "cpu"], "--precision: tf32 found, which needs a CUDA"),
            (["--replicas-per-pass", "0"], "--replicas-per-pass: 0 found, must be from 1 to 10000"),
            (["--precision", "half"], "'half' is not one of 'highest', 'tf32'"),
            (["--data-root", "missing"], "--data-root: missing is not a folder"),
            (["--data-root", "tiny.yaml"], "--data-root: tiny.yaml is not a folder"),
            (["--results", "tiny.yaml"], "--results: tiny.yaml is not a folder"),
        )),
        (["run", "quick", "--results", "tiny.yaml"], "--results: tiny.yaml is not a folder"),
        (["report", "quick", "--results", "tiny.yaml"], "--results: tiny.yaml is not a folder"),
        ([*RUN[:4], "--results", "tiny.yaml/below"], "--results: tiny.yaml is not a folder"),
        (["report", "tiny.yaml", "--results", "tiny.yaml/below"], "--results: tiny.yaml is not a folder"),
        *(([name, "table2", "--method", "TP", "--dataset", "cifar-10"],
           "--method, --dataset: the plan table2 has nothing for TP on cifar-10")
          for name in ("plan", "run", "status", "report")),
        *(([name, "tiny.yaml", option, "bogus"], words)
          for name in ("plan", "run", "status", "report")
          for option, words in (
              ("--dataset", "--dataset: 'bogus'"), ("--method", "--method: 'bogus'"),
              ("--seeds", "--seeds: 'bogus'"), ("--epochs", "--epochs"))),
        *(([name, "tiny.yaml", option, "bogus"], words)
          for name in ("plan", "run", "status")
          for option, words in (
              ("--data-root", "--data-root: bogus is not a folder"), ("--device", "--device: 'bogus'"))),
        (["report", "tabel2"], "report: 'tabel2' found, allowed: table2, figure2"),
        (["report", "tabel2"], "all; or a plan: quick, table2, or a path ending in .yaml"),
        (["report", "tabel2", "--plan", "quick"], "report: 'tabel2' found, allowed: table2, figure2"),
        (["report", "table2", "--plan", "bogus"], "unknown plan 'bogus'"),
        (["report", "table2", "--open"], "--open: goes with report all"),
        (["report", "figure2", "--plan", "tiny.yaml"], "tiny.yaml has nothing for figure2"),
        (["report", "table3", "--seeds", "1"], "report table3: --seeds 1 found, it takes none of these"),
        (["report", "differences", "--seeds", "1"], "table2 has nothing for differences under these options"),
        (["report", "differences", "--method", "BP,Foo,Bar"], "--method: 'Foo', 'Bar' found, allowed: BP,"),
        (["run", "tiny.yaml", "--for", "table3"], "--for: 'table3' found, allowed: table1, figure2"),
        (["run", "tiny.yaml", "--for", "figure2"], "--for: the plan measures no jacobian"),
        (["run", "table2", "--for", "figure2", "--method", "BP"], "--for: the plan measures no jacobian"),
        (["verify", "--plan", "bogus"], "unknown plan 'bogus'"),
        (["rerun", "--random", "0"], "--random: 0 found"),
        (["rerun", "abc", "--random", "2"], "--random: goes without keys, abc given"),
        (["rerun", "abc", "--seed", "2"], "--seed: goes without keys, abc given"),
        (["rerun", "--epochs", "0"], "--epochs: 0 found"),
        (["rerun", "--results", "none"], "--results: none does not exist"),
        (["rerun", "--results", "."], "no stored run to train again"),
        (["verify", "--results", "none"], "--results: none does not exist"),
        (["report", "claims", "--method", "BP"], "--method: goes with report table2 and differences"),
        (["report", "all", "--dataset", "mnist"], "--dataset: goes with report table2 and differences"),
        (
            ["report", "tiny.yaml", "--epochs", "7", "--results", "."],
            "nothing is stored yet for python -m benchmark run tiny.yaml --epochs 7 --results .",
        ),
        (["reproduce", "papers"], "'papers' found, allowed: paper, quick"),
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
    assert fails(command(*RUN)).startswith("error: data set cifar-10 not found; ")
    assert len(list(tmp_path.glob("results/runs/*/*"))) == 2


ADDITION = PLAN.replace("{network: 1x8}\n", "{network: 1x8, addition: true}\n")


def test_only_absent_data_of_an_addition_are_skipped(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(ADDITION)

    def load(error: Exception) -> Callable[..., None]:
        def fail(*arguments: object, **options: object) -> None:
            raise error

        return fail

    monkeypatch.setattr(datasets, "load", load(DataNotFound("nowhere")))
    code, out, err = command(*RUN)
    assert (code, err) == (0, "")
    assert "skipped (not in the paper): nowhere" in out
    assert fails(command(*RUN, "--dataset", MINI)) == "error: nowhere\n"
    chosen = Selection("tiny.yaml", None, ["BP"], None, None, Path("results"))
    (run,) = chosen.plan.runs(chosen.rows, chosen.columns)
    chosen.store.save_checkpoint(run.key, {})
    file = Path("results/partial") / run.key / "checkpoint.pt"
    file.write_bytes(b"damaged")
    assert fails(command(*RUN)).startswith(f"error: {file} is damaged")
    file.unlink()
    monkeypatch.setattr(datasets, "load", load(UserError("another checksum")))
    assert fails(command(*RUN)) == "error: another checksum\n"


def test_a_claimed_run_does_not_stop_the_others(command: Command, tmp_path: Path) -> None:
    chosen = Selection("tiny.yaml", None, None, None, None, Path("results"))
    bp, fa = chosen.plan.runs(chosen.rows, chosen.columns)
    with chosen.store.claim(bp.key):
        claimed = f"run {bp.key} (BP on {MINI}) is being trained by another process; wait for it, or stop it"
        assert fails(command(*RUN)) == f"error: {claimed}\n"
        assert [folder.name for folder in chosen.store.folders()] == [f"fa-{fa.key}"]
    assert command(*RUN)[0] == 0
    orphan = chosen.root / "partial" / bp.key
    with chosen.store.claim(bp.key):  # stored, and its process not yet gone
        assert command(*RUN)[0] == 0
        assert orphan.is_dir()
    assert not orphan.exists()


def test_run_tidies_what_a_kill_has_left(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    before = store(tmp_path / "results")
    chosen = Selection("tiny.yaml", None, ["BP"], None, None, Path("results"))
    (found,) = chosen.statuses()
    chosen.store.save_checkpoint(found.run.key, {})
    assert store(tmp_path / "results") != before
    assert command(*RUN)[0] == 0
    assert not list(tmp_path.glob("results/partial/*"))
    assert store(tmp_path / "results") == before


def test_every_failure_has_a_line(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--method", "BP")[0] == 0
    (folder,) = Path("results").glob("runs/*/*")
    (folder / "epochs.csv").write_text("")
    chosen = Selection("tiny.yaml", None, ["FA"], None, None, Path("results"))
    (fa,) = chosen.plan.runs(chosen.rows, chosen.columns)
    damage = (
        f"{folder / 'epochs.csv'}: changed since the run was stored; "
        f"restore {folder}, or delete it to train this run again"
    )
    claimed = f"run {fa.key} (FA on {MINI}) is being trained by another process; wait for it, or stop it"
    with chosen.store.claim(fa.key):
        for options in ([], ["--report"]):
            code, _, err = command(*RUN, *options)
            assert (code, err) == (1, f"error: {damage}\nerror: {claimed}\n")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("Unable to allocate"),
    ],
)
def test_out_of_memory_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli, "execute", full)
    assert "too little memory; smaller networks or fewer replicas at once" in fails(command(*RUN))


def test_other_images_of_an_unpinned_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = DatasetConfig(
        title="Mine", kind="image-folder", folder="mine", image=[1, 4, 4], classes=2, archive="mine.tar.gz"
    )
    monkeypatch.setattr(options, "load_datasets", lambda: {"mine": mine})
    (tmp_path / "tiny.yaml").write_text(PLAN.replace(MINI, "mine"))

    def write(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for part in ("train", "test"):
            for label in "ab":
                folder = tmp_path / "data" / "mine" / part / label
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(4):
                    pixels = draw.integers(0, 256, (4, 4), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(0)
    code, _, err = command(*RUN, "--method", "BP")
    assert (code, err) == (0, "")
    (folder,) = Path("results").glob("runs/*/*")
    before = store(tmp_path / "results")
    assert command(*RUN, "--method", "BP")[0] == 0
    write(1)
    for more in (["--method", "BP"], []):
        assert fails(command(*RUN, *more)).startswith(f"error: {folder} was trained on other images of mine")
    assert "trained on other images" in fails(command(*RUN, "--method", "FA"))
    assert store(tmp_path / "results") == before
    larger = mine.model_copy(update={"image": [1, 8, 8]})  # other pixels, but by its own declaration
    monkeypatch.setattr(options, "load_datasets", lambda: {"mine": larger})
    assert command(*RUN)[0] == 0
    after = store(tmp_path / "results")
    assert {name: after[name] for name in before} == before


def test_reports_of_another_protocol(command: Command, tmp_path: Path) -> None:
    """Refused only where nothing at all is stored: of damage and of stored seeds the report tells."""
    assert command(*RUN, "--method", "BP", "--epochs", "2")[0] == 0
    report = ("report", "tiny.yaml", "--results", "results")
    assert command(*report, "--epochs", "2", "--method", "FA")[0] == 0
    assert command(*report, "--epochs", "2", "--seeds", "1")[0] == 0
    (folder,) = (tmp_path / "results").glob("runs/*/*")
    (folder / "epochs.csv").write_text("")
    assert "changed since the run was stored" in fails(command(*report, "--epochs", "2"))


def test_damaged_store(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--method", "BP")[0] == 0
    (folder,) = (tmp_path / "results").glob("runs/*/*")
    for name, damage in (("epochs.csv", "1,1,0,0,False\n"), ("run.yaml", "a: [")):
        whole = (folder / name).read_bytes()
        with open(folder / name, "a") as stream:
            stream.write(damage)
        before = store(tmp_path / "results")
        result = command("status", "tiny.yaml", "--results", "results")
        assert name in fails(result)
        assert (result[1].count("damaged"), result[1].count("missing")) == (1, 1)
        assert "store intact" not in result[1]
        for arguments in (["report", *RUN[1:2]], ["run", *RUN[1:2], "--method", "BP", "--report"]):
            assert name in fails(command(*arguments, "--results", "results"))
        assert store(tmp_path / "results") == before
        (folder / name).write_bytes(whole)
    (folder / "epochs.csv").unlink()
    before = store(tmp_path / "results")
    assert "epochs.csv" in fails(command("status", "tiny.yaml", "--results", "results"))
    assert "epochs.csv" in fails(command(*RUN))
    after = store(tmp_path / "results")
    assert {name: after[name] for name in before} == before
    assert not (folder / "epochs.csv").exists()
    new = sorted(set(after) - set(before))
    assert [Path(name).name for name in new] == ["epochs.csv", "run.yaml"]
    assert all(Path(name).parent.name.startswith("fa-") for name in new), "the other run was not trained"


def test_every_damaged_run_is_named_on_a_line_of_its_own(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    folders = sorted((tmp_path / "results").glob("runs/*/*"))
    assert len(folders) == 2
    for folder in folders:
        (folder / "epochs.csv").unlink()
    for arguments in (("status", "tiny.yaml"), ("verify", "--plan", "tiny.yaml"), ("report", "tiny.yaml")):
        code, _, err = command(*arguments, "--results", "results")
        lines = err.splitlines()
        assert (code, len(lines)) == (1, 2)
        assert all(line.startswith(("error: ", "warning: not read: ")) for line in lines)
        assert lines[-1].startswith("error: ")
        assert all(sum(folder.name in line for line in lines) == 1 for folder in folders)


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "tiny.yaml"],
        ["report", "all", "--plan", "tiny.yaml"],
        ["run", "tiny.yaml", "--report"],
        ["search", "--plan", "tiny.yaml", "--method", "BP"],
        ["sensitivity", "--profile", "tiny.yaml", "--methods", "BP"],
        ["reproduce", "quick"],
        ["timing", "--table3", "--profile", "quick"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_that_cannot_be_written_is_refused_at_once(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    assert command(*RUN)[0] == 0
    results = tmp_path / "results"
    (results / "figures").mkdir(exist_ok=True)
    before = store(tmp_path)
    real = os.access
    for read_only in (results, results / "figures"):
        for missing in (os.W_OK, os.X_OK):

            def access(path: Path, mode: int, where: Path = read_only, lacks: int = missing) -> bool:
                return real(path, mode) and not (Path(path) == where and mode & lacks)

            with monkeypatch.context() as patch:
                patch.setattr("os.access", access)
                code, out, err = command(*arguments, "--results", str(results))
            below = f" for {read_only / 'quick'}" if "quick" in arguments else ""
            assert (code, out, err) == (1, "", f"error: {read_only} cannot be written to{below}\n")
    assert store(tmp_path) == before


def test_changed_code_of_a_method_is_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(*RUN)[0] == 0
    monkeypatch.setattr(BP, "code", f"{BP.code}, changed")
    said = "BP has changed since; if its numbers have, raise its `version` to train anew"
    code, _, err = command(*RUN)
    assert (code, err) == (0, f"warning: BP on {MINI}: {said}\n")
    code, out, _ = command("status", "tiny.yaml", "--results", "results")
    assert (code, out.count("has changed since")) == (0, 1)
    assert "store intact" in out


@pytest.mark.parametrize("place", ["runs", f"runs/{MINI}"])
def test_tables_are_not_emptied_where_the_store_cannot_be_read(
    command: Command, tmp_path: Path, place: str
) -> None:
    assert command(*RUN, "--report")[0] == 0
    folder = tmp_path / "results" / place
    folder.rename(tmp_path / "kept")
    folder.write_text("in the way")
    before = store(tmp_path / "results")
    of = ("--results", "results")
    for arguments in (
        ("status", "tiny.yaml", *of),
        ("report", "tiny.yaml", *of),
        ("report", "all", "--plan", "tiny.yaml", *of),
        ("verify", "--plan", "tiny.yaml", *of),
        ("rerun", "--random", "1", "--plan", "tiny.yaml", *of),
        RUN,
    ):
        result = command(*arguments)
        assert f"error: results/{place}: Not a directory" in fails(result), arguments
        assert "images" not in result[1], "data were loaded first"
    assert store(tmp_path / "results") == before


def test_a_folder_that_cannot_be_written_is_found_before_training(command: Command, tmp_path: Path) -> None:
    for place in (f"runs/{MINI}", "partial"):
        folder = tmp_path / "results" / place
        folder.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.access", lambda path, mode, folder=folder: Path(path).resolve() != folder)
            result = command(*RUN)
        assert fails(result) == f"error: results/{place} cannot be written to\n"
        assert "images" not in result[1]
    assert command(*RUN)[0] == 0
    for table in (tmp_path / "results").glob("tables/*"):
        table.unlink()
    (tmp_path / "results" / "tables").write_text("in the way")
    line = fails(command("report", "tiny.yaml", "--results", "results"))
    assert line == "error: results/tables: a folder is needed here\n"


def test_what_goes_on_says_from_where(command: Command) -> None:
    assert command(*RUN, "--method", "BP", "--seeds", "1")[0] == 0
    code, out, _ = command(*RUN)
    assert code == 0
    assert "\nBP goes on: 1 of 2 seeds stored\n" in out
    assert "FA goes on" not in out


def test_damaged_checkpoint(command: Command, tmp_path: Path) -> None:
    chosen = Selection("tiny.yaml", None, ["BP"], None, None, Path("results"))
    (found,) = chosen.statuses()
    file = Path("results/partial") / found.run.key / "checkpoint.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    result = command("status", "tiny.yaml", "--results", "results")
    line = fails(result)
    assert line.startswith(f"error: {file} is damaged")
    assert (result[1].count("damaged (ValueError)"), result[1].count("missing")) == (1, 1)
    assert fails(command(*RUN)) == line
    assert file.read_bytes() == b"damaged"
    assert [folder.name[:3] for folder in chosen.store.folders()] == ["fa-"]


def test_a_folder_in_the_place_of_a_table_is_named(command: Command, tmp_path: Path) -> None:
    command(*RUN, "--method", "BP")
    (tmp_path / "results" / "tables" / "tiny.md").mkdir(parents=True)
    line = fails(command("report", "tiny.yaml", "--results", "results"))
    file, kept = "results/tables/tiny.md", "what was stored before is kept"
    assert line.strip() == f"error: {file}: cannot be written: Is a directory; {kept}"


def test_partial_runs_never_reach_a_table(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)

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


def test_duration() -> None:
    assert [cli.duration(seconds) for seconds in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]


def test_run_for_figure_2_trains_what_it_needs_and_draws_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "measured.yaml").write_text(
        PLAN
        + f"""
  FW-DTP:
    method: FW-DTP
    hyperparameters: {{{MINI}: {{lr: 0.1, stepsize: 0.04, source: guess}}}}
measure:
  jacobian: {{rows: [FW-DTP], columns: [{MINI}]}}
"""
    )
    status, _, err = command("run", "measured.yaml", "--for", "figure2", "--results", "results")
    assert (status, err) == (0, "")
    (trained,) = (tmp_path / "results/runs" / MINI).iterdir()
    assert trained.name.startswith("fw-dtp-")
    assert (tmp_path / "results/figures/figure2-measured.png").stat().st_size > 1000


def test_plans_that_share_a_store_share_no_files(command: Command, tmp_path: Path) -> None:
    """A plan on top of another uses its stored runs, unless it names a directory of its own."""
    measured = f"""
  FW-DTP:
    method: FW-DTP
    hyperparameters: {{{MINI}: {{lr: 0.1, stepsize: 0.04, source: guess}}}}
measure:
  jacobian: {{rows: [FW-DTP], columns: [{MINI}]}}
  conditions: {{rows: [FW-DTP], columns: [{MINI}]}}
"""
    (tmp_path / "tiny.yaml").write_text(PLAN + measured)
    (tmp_path / "mine.yaml").write_text("base: tiny.yaml\ntitle: Mine\nrows: {FA: null}\n")
    (tmp_path / "apart.yaml").write_text("base: tiny.yaml\ntitle: Apart\ndirectory: apart\n")
    assert command(*RUN)[0] == 0
    for changed in ((), ("--seeds", "1")):
        report = ("report", "all", "--results", "results", *changed)
        assert command(*report, "--plan", "tiny.yaml")[0] == 0
        before = store(tmp_path / "results")
        code, out, _ = command(*report, "--plan", "mine.yaml")
        assert code == 0
        after = store(tmp_path / "results")
        assert {name: after[name] for name in before} == before
    added = {name for name in after if "mine" in name}
    assert {"tables/table1-mine.md", "figures/figure2-mine.png", "figures/report-mine.html"} <= added
    assert {"tables/table1-mine-seeds-1.md", "figures/report-mine-seeds-1.html"} <= added
    _, out, _ = command("status", "mine.yaml", "--results", "results")
    assert "of these: 2 stored\n" in out
    _, out, _ = command("status", "apart.yaml", "--results", "results")
    assert "of these: 3 missing\n" in out


@pytest.mark.parametrize("name", ["table1", "table2-10-epochs", "table3", "figure3", "claims-x", "report"])
def test_plans_named_like_reports_are_refused(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(PLAN)
    line = fails(command("report", f"{name}.yaml", "--results", "results"))
    assert f"{name}.yaml: reports have names that begin with {name.split('-')[0]}; rename the plan" in line
    assert not (tmp_path / "results").exists()


def test_a_namesake_of_a_shipped_plan_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "table2.yaml").write_text(PLAN)
    tables = store(RESULTS / "tables")
    assert f"{CONFIGS / 'table2.yaml'} has this name" in fails(command("report", "table2.yaml"))
    assert store(RESULTS / "tables") == tables
    (tmp_path / "results").mkdir()
    assert command("report", "table2.yaml", "--results", "results")[0] == 0


def test_names_of_reports_are_known() -> None:
    assert set(sweep.REPORTS) == {*contents.REPORTS, "report"}


def test_stored_seeds_are_put_together_without_data(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mnist.yaml").write_text(PLAN.replace(MINI, "mnist"))
    chosen = Selection("mnist.yaml", None, ["BP"], "1,2,3", None, tmp_path / "results")
    (run,) = chosen.plan.runs(chosen.rows, chosen.columns)
    lines = [[e, s, 0.5, 2.0 + s, False] for e in range(1, run.epochs + 1) for s in run.seeds]
    chosen.store.commit("BP", record_of(run), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))
    asked = ("mnist.yaml", "--method", "BP", "--seeds", "1,3", "--results", "results", "--device", "cpu")
    assert "2 of 2 seeds stored" in command("status", *asked)[1]
    status, out, err = command("run", *asked)
    assert (status, err) == (0, "")
    assert "BP put together from its seeds, all stored" in out
    assert " stored " in command("status", *asked)[1]
    assert "4.00 ± 1.41 (n=2)" in command("report", *asked[:-2])[1]


def test_report_all_makes_the_page(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    for _ in range(2):
        status, out, _ = command("report", "all", "--plan", "tiny.yaml", "--results", "results")
        assert status == 0
        page = (tmp_path / "results/figures/report-tiny.html").read_text()
        assert "NOT COMPARABLE WITH THE PAPER" in page
        assert out.splitlines()[-1].endswith("report-tiny.html")
    stored = [path.parent.name for path in tmp_path.glob("results/runs/*/*/run.yaml")]
    assert len(stored) == 2
    assert all(f"{name}/run.yaml" in page for name in stored)


def test_verify_fails_where_a_claim_does(command: Command, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    status, out, _ = command("verify", "--results", "results")
    assert status == 0
    assert "NO DATA" in out
    assert "NOT SUPPORTED:" in out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.claims.Ledger.failed", True)
        assert command("verify", "--results", "results")[0] == 3


def test_reports_say_what_they_cannot_read(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    (folder,) = tmp_path.glob("results/runs/*/bp-*")
    folder.rename(folder.with_name("moved"))
    for name in ("report", "verify"):
        arguments = ("table2",) if name == "report" else ()
        status, _, err = command(name, *arguments, "--plan", "tiny.yaml", "--results", "results")
        assert status == 0
        (line,) = err.splitlines()
        assert line.startswith(f"warning: not read: {Path('results')}")
        assert line.endswith(f"move it to {folder.relative_to(tmp_path)}")
    status, _, err = command(*RUN, "--method", "FA")
    assert status == 0
    assert err.count("warning: not read: ") == 1


def test_rerun_says_what_came_out(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    again = ("rerun", "--plan", "tiny.yaml", "--results", "results", "--device", "cpu")
    status, out, err = command(*again)
    assert (status, err) == (0, "")
    assert out.count("identical") == 2
    line = r"^(BP|FA) on \S+, [0-9a-f]{12}, seeds? .*: \d+ of \d+ epochs \(all: 0:00:\d\d on .*\)$"
    announced = re.findall(line, out, re.M)
    assert sorted(announced) == ["BP", "FA"]
    epochs = PLAN.split("epochs: ")[1].split(",")[0]
    assert f": 1 of {epochs} epochs (all: " in command(*again, "--epochs", "1")[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FA, "version", FA.version + 1)
        status, out, err = command(*again)
        assert (status, err, out.count("identical")) == (0, "", 1)
        keys = [folder.name.rsplit("-", 1)[1] for folder in sorted(tmp_path.glob("results/runs/*/*"))]
        patch.setattr("benchmark.rerun.train", lambda *_: pytest.fail("trained before all was checked"))
        assert "made by FA with" in fails(command("rerun", *keys, *again[1:]))
        patch.setattr(BP, "version", BP.version + 1)
        assert "all 2 stored runs were made by other versions" in fails(command(*again))


def test_a_batch_systems_signal_is_like_ctrl_c(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminated(*_: Any) -> None:
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
from benchmark.options import run_app
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
        if name == "benchmark.cli":
            {interrupt}
sys.meta_path.insert(0, Impatient())
runpy.run_module("benchmark", run_name="__main__")
"""
    interrupted(tmp_path, program)


@pytest.mark.parametrize("label", ["bp", "'BP '"])
def test_rows_that_would_share_files_are_refused(command: Command, tmp_path: Path, label: str) -> None:
    other = f"  {label}: {{method: BP, hyperparameters: {{{MINI}: {{lr: 0.2, source: guess}}}}}}\n"
    (tmp_path / "twins.yaml").write_text(PLAN + other)
    line = fails(command("status", "twins.yaml", "--results", "results"))
    assert "twins.yaml: rows." in line
    assert "its files would be those of 'BP'" in line


@pytest.mark.parametrize("label", ["", " ", "[/]", "B\nP", "BP\x07"])
def test_rows_without_a_name_are_refused(command: Command, tmp_path: Path, label: str) -> None:
    other = (
        f"  {json.dumps(label)}: {{method: BP, hyperparameters: {{{MINI}: {{lr: 0.2, source: guess}}}}}}\n"
    )
    (tmp_path / "nameless.yaml").write_text(PLAN + other)
    line = fails(command("status", "nameless.yaml", "--results", "results"))
    assert (
        f"nameless.yaml: rows: {label!r} found, allowed: one line of printable text with a letter or digit"
        in line
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("20-epochs", "end like 20-epochs"),
        ("seeds-1", "end like seeds-1"),
        ("mine-seeds-1-2", "end like seeds-1-2"),
        ("mine-20-epochs", "end like 20-epochs"),
        ("mine-tf32", "end like tf32"),
        ("all", "takes 'all' for everything"),
    ],
)
def test_plans_whose_files_would_be_others_are_refused(
    command: Command, tmp_path: Path, name: str, problem: str
) -> None:
    (tmp_path / f"{name}.yaml").write_text(PLAN)
    line = fails(command("report", f"{name}.yaml", "--results", "results"))
    assert f"{name}.yaml: " in line
    assert problem in line
