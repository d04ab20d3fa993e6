"""Studies in files, whatever the folder is called."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import filelock
import optuna
import pytest

from benchmark.common.errors import UserError
from benchmark.studies import storage as optuna_storage


@pytest.mark.parametrize("folder", ["plain", "what?", "a b", "50%25", "#1", "x;y&z=1"])
def test_a_study_lies_where_its_folder_is(tmp_path: Path, folder: str) -> None:
    file = tmp_path / folder / "study.db"
    file.parent.mkdir()
    url = optuna_storage.sqlite_url(file)
    with optuna_storage.driver(url) as storage:
        optuna.create_study(storage=storage, study_name="made")
    assert file.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert optuna_storage.study_names(url) == ["made"]
    assert optuna_storage.study_names(optuna_storage.sqlite_url(file.with_name("none.db"))) == []
    assert not file.with_name("none.db").exists()
    found, missing = optuna_storage.read_studies(url, ["made", "other"])
    assert found is not None
    assert found.study_name == "made"
    assert missing is None


def test_the_same_file_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = optuna_storage.sqlite_url(tmp_path / "study.db")
    assert optuna_storage.same(url, "sqlite:///study.db")
    assert optuna_storage.same(url, "sqlite+pysqlite:///study.db")
    assert not optuna_storage.same(url, "sqlite:///other.db")
    assert not optuna_storage.same(url, "postgresql://somebody@host/study")


@pytest.mark.parametrize("content", [b"nothing like it", b"SQLite format 3\0 cut off"], ids=str)
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(content)
    _is_refused(file, "no database of Optuna")
    assert file.read_bytes() == content


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "study.db").mkdir()
    _is_refused(tmp_path / "study.db", r"no database of Optuna \(a folder\)")
    assert (tmp_path / "study.db").is_dir()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE mine (x)")
    before = file.read_bytes()
    _is_refused(file, "not Optuna's")
    assert file.read_bytes() == before


def test_a_link_that_leads_nowhere_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.db").symlink_to(tmp_path / "away.db")
    _is_refused(tmp_path / "study.db", "which does not exist")
    assert not (tmp_path / "away.db").exists()


def test_an_empty_file_is_filled_by_a_driver_alone(tmp_path: Path) -> None:
    """As a kill at its very beginning leaves it."""
    file = tmp_path / "study.db"
    file.touch()
    url = optuna_storage.sqlite_url(file)
    with pytest.raises(UserError, match="empty"):
        optuna_storage.study_names(url)
    assert file.read_bytes() == b""
    with optuna_storage.driver(url) as storage:
        optuna.create_study(storage=storage, study_name="made")
    assert optuna_storage.study_names(url) == ["made"]


def test_a_locked_database_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.db"
    url = optuna_storage.sqlite_url(file)
    with optuna_storage.driver(url) as storage:
        optuna.create_study(storage=storage, study_name="made")
    with closing(sqlite3.connect(file, check_same_thread=False)) as database:
        database.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(2.0, database.rollback)
        release.start()
        with optuna_storage.driver(url) as storage:
            optuna.create_study(storage=storage, study_name="second")
        release.join()
    assert capsys.readouterr().out.count("database is locked by another program; waiting") == 1
    assert optuna_storage.study_names(url) == ["made", "second"]


def test_a_database_that_stays_locked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_storage, "WAIT_SECONDS", 0.1)
    file = tmp_path / "study.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("BEGIN EXCLUSIVE")
        _is_refused(file, "database is locked")


def test_one_process_drives_a_study(tmp_path: Path) -> None:
    url, lock = "postgresql://somebody@host/study", tmp_path / "sensitivity.lock"
    with (
        filelock.FileLock(lock),
        pytest.raises(UserError, match="in use by another process"),
        optuna_storage.driver(url, lock),
    ):
        pass


def _is_refused(file: Path, words: str) -> None:
    url = optuna_storage.sqlite_url(file)
    with pytest.raises(UserError, match=words):
        optuna_storage.study_names(url)
    with pytest.raises(UserError, match=words):
        optuna_storage.read_studies(url, ["made"])
    with pytest.raises(UserError, match=words), optuna_storage.driver(url):
        pass
