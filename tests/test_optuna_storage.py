"""Studies in files, whatever the folder is called."""

from pathlib import Path

import optuna
import pytest

from benchmark import optuna_storage


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
