"""Open Optuna studies: one process drives a study at a time, and holds a file lock on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from benchmark.common.errors import UserError
from benchmark.common.progress import console

WAIT_SECONDS = 300.0
"""How long to wait for another program that writes to the SQLite file."""
_CONNECT_SECONDS = 10

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sqlite_url(file: Path) -> str:
    """Write the storage URL of a SQLite file."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def same(url: str, other: str) -> bool:
    """Whether both URLs name the same storage, even if the path of its file is written differently."""
    files = [Path(_file(_parse(u))).resolve() for u in (url, other) if u.startswith("sqlite")]
    return url == other or (len(files) == 2 and files[0] == files[1])


@contextmanager
def driver(url: str, lock: Path | None = None) -> Iterator[RDBStorage]:
    """Open a storage for writing, and hold its lock: `lock`, or `<file>.lock` beside a SQLite file.

    `UserError` if another process holds the lock, or if the database does not answer.
    """
    parsed = _parse(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    file = Path(_file(parsed)) if sqlite else None
    if file is not None:
        lock = file.with_name(f"{file.name}.lock")
    assert lock is not None, "a database that is no file needs a lock"
    if not lock.parent.is_dir():
        raise UserError(f"--storage: the folder {lock.parent} does not exist")
    try:
        with filelock.FileLock(lock, timeout=0), _answering(url):
            if file is not None:
                _check_sqlite(file, writing=True)
            yield _open(url)
    except filelock.Timeout:
        if not lock.exists():
            raise UserError(f"--storage: {lock.parent} cannot be written to") from None
        raise UserError(
            f"{file or _shown(url)} is in use by another process (lock: {lock}); wait for it, or stop it"
        ) from None


def check_data(study: optuna.Study, checksum: str) -> None:
    """Record the data's checksum in the study. `UserError` if the study was begun on other data."""
    before = study.user_attrs.get("data")
    if before is None:
        study.set_user_attr("data", checksum)
    elif before != checksum:
        raise UserError(
            f"the study {study.study_name!r} was begun on data with checksum {before[:12]}..., "
            f"{checksum[:12]}... found now"
        )


def study_names(url: str) -> list[str]:
    """List the names of all studies, sorted. The list is empty if the SQLite file does not exist."""
    if _is_absent(url):
        return []
    with _answering(url):
        return sorted(optuna.get_all_study_names(_open(url)))


def read_studies(url: str, names: Sequence[str]) -> list[optuna.Study | None]:
    """Open studies for reading; None for a name without a study."""
    if _is_absent(url):
        return [None for _ in names]
    with _answering(url):
        storage = _open(url)
        known = set(optuna.get_all_study_names(storage))
        return [optuna.load_study(study_name=n, storage=storage) if n in known else None for n in names]


def _is_absent(url: str) -> bool:
    """Whether the URL names a SQLite file that does not exist. Opening it would create it."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    file = Path(_file(parsed))
    _check_sqlite(file)
    if file.exists() and not file.stat().st_size:
        raise UserError(f"{file}: empty, no database of Optuna; delete it, or restore it")
    return not file.exists()


def _check_sqlite(file: Path, *, writing: bool = False) -> None:
    """`UserError` if the file is not Optuna's. Waits while another program locks it."""
    if file.is_symlink() and not file.exists():
        raise UserError(f"{file}: a link to {file.readlink()}, which does not exist")
    if not file.exists():
        return
    try:
        tables = _tables(file, writing)
    except sqlite3.DatabaseError as error:
        reason = "a folder" if file.is_dir() else error
        raise UserError(f"{file}: no database of Optuna ({reason}); left as it is, move it away") from None
    if tables and not tables & {"studies", "version_info", "alembic_version"}:
        raise UserError(f"{file}: a database, but not Optuna's; left as it is, move it away")


def _tables(file: Path, writing: bool) -> set[str]:
    """Names of the tables in a SQLite file, as soon as it can be read, or written to."""
    # Opened for writing, so that SQLite can roll back what a killed process left half written.
    address = f"file:{quote(str(file.resolve()))}?mode=rw"
    for seconds in (1.0, WAIT_SECONDS):
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=seconds)) as database:
                if writing:
                    database.execute("BEGIN IMMEDIATE")
                return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
        if seconds != WAIT_SECONDS:
            console.print(
                f"{file}: database is locked by another program; waiting up to {WAIT_SECONDS:.0f} s",
                markup=False,
            )
    raise UserError(f"{file}: database is locked by another program; close it, and start again")


def requeue(study: optuna.Study, storage: RDBStorage) -> None:
    """Set the running trials waiting again. With one driver, they are what a stopped process left."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        allowed = "sqlite:///study.db or postgresql://user@host/name"
        raise UserError(f"--storage: not the URL of a database, allowed: such as {allowed}") from None


def _file(sqlite: URL) -> str:
    if sqlite.database in (None, "", ":memory:"):
        raise UserError(f"--storage: {sqlite} names no file, allowed: such as sqlite:///study.db")
    return sqlite.database


def _open(url: str) -> RDBStorage:
    parsed = _parse(url)
    kind = parsed.get_backend_name()
    arguments: dict[str, Any] = {}
    if kind == "sqlite":
        arguments = {"timeout": WAIT_SECONDS}
    elif kind in ("postgresql", "mysql", "mariadb") and "connect_timeout" not in parsed.query:
        arguments = {"connect_timeout": _CONNECT_SECONDS}
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": arguments, "pool_pre_ping": True})
    except NoSuchModuleError as error:
        raise UserError(f"{_shown(url)}: unknown kind of database: {error}") from None
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error
        if isinstance(error, ModuleNotFoundError):
            package = error.name or package
        raise UserError(f"{_shown(url)}: the Python package {package} is needed and not installed") from None
    except RuntimeError as error:  # tables of another version of Optuna
        raise UserError(f"{_shown(url)}: {' '.join(str(error).split())}") from None


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """Raise the failure of a database as a `UserError`."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        said = " ".join(str(getattr(cause, "orig", None) or cause or error).split())
        if "malformed" in said or "not a database" in said:
            said += "; restore it, or delete it to start its studies again"
        raise UserError(f"{_shown(url)}: {said}") from None


def _shown(url: str) -> str:
    return f"storage {_parse(url).render_as_string(hide_password=True)}"
