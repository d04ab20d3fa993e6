"""A store that is damaged, full, read-only or in use: a line a problem, and nothing is lost."""

import os
from pathlib import Path

import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.report import contents
from benchmark.sweep import execute as executor
from benchmark.sweep import train
from benchmark.sweep.selection import Selection
from tests.helpers.commands import MINI, RUN, Command, fails, files


def test_damaged_store(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--method", "BP")[0] == 0
    (folder,) = (tmp_path / "results").glob("runs/*/*")
    for name, damage in (("epochs.csv", "1,1,0,0,False\n"), ("run.yaml", "a: [")):
        whole = (folder / name).read_bytes()
        with open(folder / name, "a") as stream:
            stream.write(damage)
        before = files(tmp_path / "results")
        result = command("status", "tiny.yaml", "--results", "results")
        assert name in fails(result)
        assert (result[1].count("damaged"), result[1].count("missing")) == (1, 1)
        assert "store intact" not in result[1]
        for arguments in (["report", *RUN[1:2]], ["run", *RUN[1:2], "--method", "BP", "--report"]):
            assert name in fails(command(*arguments, "--results", "results"))
        assert files(tmp_path / "results") == before
        (folder / name).write_bytes(whole)
    (folder / "epochs.csv").unlink()
    before = files(tmp_path / "results")
    assert "epochs.csv" in fails(command("status", "tiny.yaml", "--results", "results"))
    assert "epochs.csv" in fails(command(*RUN))
    after = files(tmp_path / "results")
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
        assert all(line.startswith("error: ") for line in lines)
        assert all(sum(folder.name in line for line in lines) == 1 for folder in folders)


def test_what_stops_no_report_is_no_error(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*RUN)[0] == 0
    (bp,) = (tmp_path / "results").glob("runs/*/bp-*")
    bp.rename(bp.with_name("moved"))

    def fail(*_: object) -> None:
        raise UserError("something else")

    monkeypatch.setitem(contents.REPORTS, "table2", fail)
    status, _, err = command("report", "tiny.yaml", "--results", "results")
    assert status == 1
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "error"]


def test_every_failure_has_a_line(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--method", "BP")[0] == 0
    (folder,) = Path("results").glob("runs/*/*")
    (folder / "epochs.csv").write_text("")
    chosen = Selection("tiny.yaml", Path("results"), method=["FA"])
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
        assert line.endswith(f"belongs in {folder.relative_to(tmp_path)}; move it there")
    status, _, err = command(*RUN, "--method", "FA")
    assert status == 0
    assert err.count("warning: not read: ") == 1


def test_damaged_checkpoint(command: Command, tmp_path: Path) -> None:
    chosen = Selection("tiny.yaml", Path("results"), method=["BP"])
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


@pytest.mark.parametrize("place", ["runs", f"runs/{MINI}"])
def test_tables_are_not_emptied_where_the_store_cannot_be_read(
    command: Command, tmp_path: Path, place: str
) -> None:
    assert command(*RUN, "--report")[0] == 0
    folder = tmp_path / "results" / place
    folder.rename(tmp_path / "kept")
    folder.write_text("in the way")
    before = files(tmp_path / "results")
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
    assert files(tmp_path / "results") == before


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
    before = files(tmp_path)
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
    assert files(tmp_path) == before


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
        patch.setattr("benchmark.store.store.Store.commit", full)
        assert "No space left on device" in fails(command(*RUN, "--method", "BP"))
    _, out, _ = command("status", "tiny.yaml", "--results", "results")
    assert "1 of 1 epochs" in out
    assert command("report", "tiny.yaml", "--results", "results")[0] == 0
    assert "n=" not in (tmp_path / "results/tables/tiny.md").read_text()
    assert command(*RUN, "--method", "BP")[0] == 0
    _, out, _ = command("status", "tiny.yaml", "--results", "results")
    assert "stored" in out


def test_a_claimed_run_does_not_stop_the_others(command: Command, tmp_path: Path) -> None:
    chosen = Selection("tiny.yaml", Path("results"))
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
    before = files(tmp_path / "results")
    chosen = Selection("tiny.yaml", Path("results"), method=["BP"])
    (found,) = chosen.statuses()
    chosen.store.save_checkpoint(found.run.key, {})
    assert files(tmp_path / "results") != before
    assert command(*RUN)[0] == 0
    assert not list(tmp_path.glob("results/partial/*"))
    assert files(tmp_path / "results") == before


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

    monkeypatch.setattr(train, "execute", full)
    assert "too little memory; smaller networks or fewer replicas at once" in fails(command(*RUN))
