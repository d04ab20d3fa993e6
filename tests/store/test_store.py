"""The store: where runs lie, and what counts as damage."""

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

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


def test_two_folders_with_one_key_are_an_error(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    home = train(run, data, chosen.store)
    other = home.with_name(f"a-backup-{run.key}")
    shutil.copytree(home, other)
    problem = f"{other} and {home} are the same run; remove one of them"
    assert chosen.store.problems() == [problem]
    found = status(run, chosen.store)
    assert (found.state, found.detail) == (State.DAMAGED, problem)
    with pytest.raises(UserError, match=re.escape(problem)):
        chosen.store.load(run.key)


@pytest.mark.parametrize("place", [f"{MINI}/mine", "mnist/{name}"])
def test_a_run_in_another_folder_is_told_where_it_belongs(
    chosen: Selection, data: Dataset, place: str
) -> None:
    run = picked(chosen)
    home = train(run, data, chosen.store)
    wrong = chosen.root / "runs" / place.format(name=home.name)
    wrong.parent.mkdir(exist_ok=True)
    home.rename(wrong)
    assert chosen.store.problems() == [f"{wrong}: this run belongs in {home}; move it there"]


def test_a_row_may_have_another_label_now(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    home = train(run, data, chosen.store)
    home.rename(home.with_name(f"renamed-{run.key}"))
    assert chosen.store.problems() == []
    assert status(run, chosen.store).state is State.STORED


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
