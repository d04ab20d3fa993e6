"""The store: where runs lie, which one is read, and what it refuses."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.sweep import execute as executor
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, status
from tests.helpers.stored import PLAN, contents, train
from tests.helpers.tiny import MINI, picked, select


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    return select(tmp_path, PLAN)


def test_a_stored_run_is_not_trained_again(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(picked(chosen), data, chosen.store)
    before = contents(chosen.root)
    monkeypatch.setattr(executor, "Training", None)
    assert train(picked(chosen), data, chosen.store) == folder
    assert contents(chosen.root) == before


def test_a_run_in_the_wrong_place_is_told_where_it_belongs(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    home = train(run, data, chosen.store)
    for wrong in (
        home.with_name("mine"),
        home.with_name(f"{home.name}-copy"),
        home.parents[1] / "mnist" / home.name,
        home.parents[1] / "a" / home.name,
    ):
        wrong.parent.mkdir(exist_ok=True)
        shutil.copytree(home, wrong)
        (problem,) = chosen.store.problems()
        assert problem == f"{wrong}: a copy of {home}, not looked at; delete this one"
        assert status(run, chosen.store).state is State.STORED
        whole = (home / "epochs.csv").read_text()
        (home / "epochs.csv").write_text("x")
        damage = [problem for problem in chosen.store.problems() if problem.startswith(f"{wrong}: ")]
        assert damage == [
            f"{wrong}: not where this run is looked for; let it replace {home}, which is damaged"
        ]
        (home / "epochs.csv").write_text(whole)
        shutil.rmtree(home)
        (problem,) = chosen.store.problems()
        assert problem == f"{wrong}: not where this run is looked for; move it to {home}"
        wrong.rename(home)
        assert chosen.store.problems() == []


def test_of_two_runs_with_one_key_an_intact_one_is_read(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    home = train(run, data, chosen.store)
    other = home.with_name(f"a-backup-{run.key}")
    shutil.copytree(home, other)
    assert chosen.store.folder(run.key) == other
    assert chosen.store.problems() == [f"{home}: a copy of {other}, not looked at; delete this one"]
    (other / "epochs.csv").write_text("x")
    assert chosen.store.folder(run.key) == home
    (damage,) = chosen.store.problems()
    assert damage.startswith(f"{other / 'epochs.csv'}: changed since")
    assert status(run, chosen.store).state is State.STORED


def test_another_training_of_a_run_is_no_copy(chosen: Selection, data: Dataset) -> None:
    home = train(picked(chosen), data, chosen.store)
    other = home.parents[1] / home.name  # one level too high
    shutil.copytree(home, other)
    (problem,) = chosen.store.problems()
    assert problem == f"{other}: a copy of {home}, not looked at; delete this one"
    record = yaml.safe_load((other / "run.yaml").read_text())
    record["data"]["checksum"] = "0" * 64
    (other / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert (
        problem
        == f"{other}: the same run as {home}, trained another time, and not looked at; keep one of them"
    )


def test_a_row_may_have_another_label_now(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    home = train(run, data, chosen.store)
    home.rename(home.with_name(f"renamed-{run.key}"))
    assert chosen.store.problems() == []
    assert status(run, chosen.store).state is State.STORED


def test_a_run_inside_another_one_is_found(chosen: Selection, data: Dataset) -> None:
    outer, inner = (train(picked(chosen, row), data, chosen.store) for row in ("BP", "DTP"))
    lost = inner.rename(outer / inner.name)
    assert chosen.store.problems() == [f"{lost}: not where this run is looked for; move it to {inner}"]


def test_two_runs_that_changed_places(chosen: Selection, data: Dataset) -> None:
    one, other = (train(picked(chosen, row), data, chosen.store) for row in ("BP", "DTP"))
    aside = one.rename(one.with_name("aside"))
    other.rename(one)
    aside.rename(other)
    for problem in chosen.store.problems():
        assert problem.endswith(", once what is there is out of the way")
    assert len(chosen.store.problems()) == 2


def test_a_run_outside_its_data_sets_folder(chosen: Selection, data: Dataset) -> None:
    home = train(picked(chosen), data, chosen.store)
    wrong = home.rename(home.parents[1] / home.name)
    problems = chosen.store.problems()
    assert problems == [f"{wrong}: not where this run is looked for; move it to {home}"]


def test_a_folder_with_runs_below_is_not_to_be_deleted(chosen: Selection, data: Dataset) -> None:
    home = train(picked(chosen), data, chosen.store)
    shutil.copytree(home.parent, home.parents[1] / "copies" / "of-mini")
    nested, problem = chosen.store.problems()
    copy = home.parents[1] / "copies" / "of-mini" / home.name
    assert nested == f"{copy}: a copy of {home}, not looked at; delete this one"
    assert "delete" not in problem
    assert f"move out what it holds, such as {home.parents[1] / 'copies' / 'of-mini' / home.name}" in problem


def test_unwritable_results_folder(chosen: Selection, data: Dataset) -> None:
    chosen.root.mkdir()
    (chosen.root / "partial").write_text("in the way")
    with pytest.raises(UserError, match="results folder") as error:
        train(picked(chosen), data, chosen.store)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["runs", f"runs/{MINI}"])
@pytest.mark.parametrize("damage", ["file", "link", "unreadable"])
def test_what_cannot_be_read_is_not_missing(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, place: str, damage: str
) -> None:
    run = picked(chosen)
    train(run, data, chosen.store)
    folder = chosen.root / place
    kept = folder.rename(chosen.root / "kept")
    if damage == "file":
        folder.write_text("in the way")
    elif damage == "link":
        folder.symlink_to(chosen.root / "not-mounted")
    else:
        kept.rename(folder)
        read = Path.iterdir

        def refused(path: Path) -> Any:
            if path == folder:
                raise PermissionError(13, "Permission denied")
            return read(path)

        monkeypatch.setattr(Path, "iterdir", refused)
    for call in (chosen.store.folders, chosen.store.problems, lambda: chosen.store.load(run.key)):
        with pytest.raises(UserError, match=f"^{re.escape(str(folder))}: .*a readable folder of the store"):
            call()
    assert status(run, chosen.store).state is State.DAMAGED
    if damage != "unreadable":
        with pytest.raises(UserError, match=re.escape(str(folder))):
            chosen.store.refuse_unwritable(MINI)


@pytest.mark.parametrize("name", ["run.yaml", "epochs.csv"])
def test_a_file_that_may_not_be_read_is_not_to_be_deleted(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = picked(chosen)
    folder = train(run, data, chosen.store)
    closed(monkeypatch, "read_text", folder / name)
    line = f"{folder / name}: cannot be read: Permission denied"
    assert chosen.store.problems() == [line]
    found = status(run, chosen.store)
    assert (found.state, found.detail) == (State.DAMAGED, line)


def test_a_checkpoint_that_may_not_be_read_is_not_to_be_deleted(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen.store.save_checkpoint("k", {})
    file = chosen.store.partial("k") / "checkpoint.pt"
    closed(monkeypatch, "read_bytes", file)
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: cannot be read: Permission denied$"):
        chosen.store.checkpoint("k")


def closed(monkeypatch: pytest.MonkeyPatch, method: str, file: Path) -> None:
    """A file of another user's; to root all are open."""
    read = getattr(Path, method)

    def refused(path: Path, *given: Any, **how: Any) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read(path, *given, **how)

    monkeypatch.setattr(Path, method, refused)


def test_hidden_files_are_none_of_the_stores(chosen: Selection, data: Dataset) -> None:
    folder = train(picked(chosen), data, chosen.store)
    for place in (folder.parent, folder.parent.parent):
        (place / ".gitkeep").touch()
        (place / "notes.txt").write_text("the second seed is odd")
    (folder.parent.parent / "lost+found").mkdir(mode=0)
    assert chosen.store.folders() == [folder]
    assert chosen.store.folder(picked(chosen).key) == folder
    assert chosen.store.problems() == []


def test_a_link_of_a_run_that_leads_nowhere_is_damage(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    folder = train(run, data, chosen.store)
    folder.rename(chosen.root / "kept")
    folder.symlink_to(chosen.root / "not-mounted")
    assert chosen.store.folders() == [folder]
    (problem,) = chosen.store.problems()
    assert str(folder / "run.yaml") in problem
    assert status(run, chosen.store).state is State.DAMAGED


def test_runs_on_another_file_system_are_refused(
    chosen: Selection, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished ones are moved there in one step, which fails between two."""
    runs = chosen.root / "runs" / MINI
    runs.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    runs.symlink_to(tmp_path / "elsewhere")
    chosen.store.refuse_unwritable(MINI)
    stat = Path.stat

    def two_devices(path: Path, **options: bool) -> Any:
        found = stat(path, **options)
        return SimpleNamespace(st_dev=found.st_dev + (path == runs), st_mode=found.st_mode)

    monkeypatch.setattr(Path, "stat", two_devices)
    with pytest.raises(UserError, match=f"runs/{MINI} and .*/partial are on two file systems"):
        chosen.store.refuse_unwritable(MINI)


def test_a_folder_is_removed_while_the_run_is_held(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another process could hold the run in between, and lose its folder."""
    held: list[bool] = []
    remove = shutil.rmtree

    def watched(folder: Path, **how: Any) -> None:
        with pytest.raises(UserError, match="being trained by another process"), chosen.store.claim("k"):
            pass
        held.append(True)
        remove(folder, **how)

    with monkeypatch.context() as patch:
        with chosen.store.claim("k"):
            patch.setattr(shutil, "rmtree", watched)
        assert held == [True]
    with chosen.store.claim("k"):
        assert chosen.store.partial("k").exists()
    assert not chosen.store.partial("k").exists()


def test_a_checkpoint_that_goes_while_it_is_read_is_none(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that another process finishes."""
    chosen.store.save_checkpoint("k", {})
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        chosen.store.forget("k")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", late)
    assert chosen.store.checkpoint("k") is None


def test_commit_never_replaces(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    folder = train(run, data, chosen.store)
    before = contents(folder)
    frame = pd.DataFrame([[1, 1, 0.0, 0.0, False]], columns=list(EPOCH_COLUMNS))
    assert chosen.store.commit(run.row, {"spec": run.spec}, frame) == folder
    assert contents(folder) == before
