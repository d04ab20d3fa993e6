"""Optuna studies: opening their storage, who drives them, and signs of life for other drivers."""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from benchmark.common.errors import UserError

HEARTBEAT_SECONDS = 20
"""How often a driver says that it lives, where several can work on a study."""
GRACE_SECONDS = 120
"""A driver silent for so long is taken for dead, and its trials go to others."""
_CONNECT_SECONDS = 10

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sqlite_url(file: Path) -> str:
    """The storage URL of a SQLite file."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def same(url: str, other: str) -> bool:
    """Whether both URLs are of the same storage, however its file is written."""
    files = [Path(_file(_parse(u))).resolve() for u in (url, other) if u.startswith("sqlite")]
    return url == other or (len(files) == 2 and files[0] == files[1])


@contextmanager
def driver(url: str) -> Iterator[RDBStorage]:
    """A storage to work on. `UserError` if it does not answer or, for SQLite, has another driver.

    A SQLite file has one driver at a time, so that a trial found running there is what a crash left.
    Elsewhere drivers send heartbeats, see `held`.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        with _answering(url):
            yield _open(url)
        return
    file = Path(_file(parsed))
    if not file.parent.is_dir():
        raise UserError(f"--storage: the folder {file.parent} does not exist")
    try:
        with filelock.FileLock(f"{file}.lock", timeout=0), _answering(url):
            _check_sqlite(file)
            yield _open(url)
    except filelock.Timeout:
        if not Path(f"{file}.lock").exists():
            raise UserError(f"--storage: {file.parent} takes no files") from None
        raise UserError(f"{file} is in use by another process; wait for it, or stop it") from None


def check_data(study: optuna.Study, checksum: str) -> None:
    """Note which images a study is made on; `UserError` where it was begun on others."""
    before = study.user_attrs.get("data")
    if before is None:
        study.set_user_attr("data", checksum)
    elif before != checksum:
        raise UserError(
            f"the study {study.study_name!r} was begun on data with checksum {before[:12]}..., "
            f"{checksum[:12]}... found now"
        )


def study_names(url: str) -> list[str]:
    """Of all studies, in order; none where there is no such SQLite file."""
    if _is_absent(url):
        return []
    with _answering(url):
        return sorted(optuna.get_all_study_names(_open(url)))


def read_studies(url: str, names: Sequence[str]) -> list[optuna.Study | None]:
    """Studies to read from; None where there is none of that name."""
    if _is_absent(url):
        return [None for _ in names]
    with _answering(url):
        storage = _open(url)
        known = set(optuna.get_all_study_names(storage))
        return [optuna.load_study(study_name=n, storage=storage) if n in known else None for n in names]


def _is_absent(url: str) -> bool:
    """Whether it is a SQLite file that is not there: opening it would create it."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    file = Path(_file(parsed))
    _check_sqlite(file)
    if file.exists() and not file.stat().st_size:
        raise UserError(f"{file}: empty, no database of Optuna; delete it, or put back what it was")
    return not file.exists()


def _check_sqlite(file: Path) -> None:
    """`UserError` for a file of something else than Optuna, which would put its tables into it."""
    if file.is_symlink() and not file.exists():
        raise UserError(f"{file}: a link to {file.readlink()}, which does not exist")
    if not file.exists():
        return
    # Not read-only, which could not take back what a kill has left half written.
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=rw", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        reason = "a folder" if file.is_dir() else error
        raise UserError(f"{file}: no database of Optuna ({reason}); left as it is, move it away") from None
    if tables and not tables & {"studies", "version_info", "alembic_version"}:
        raise UserError(f"{file}: a database, but not Optuna's; left as it is, move it away")


def is_shared(storage: RDBStorage) -> bool:
    """Whether several drivers may work at once."""
    return storage.get_heartbeat_interval() is not None


def fail_crashed(study: optuna.Study, storage: RDBStorage) -> None:
    """Mark trials FAIL that nobody trains any more."""
    if is_shared(storage):
        with _quiet():
            optuna.storages.fail_stale_trials(study)
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def take(storage: RDBStorage, trial: int) -> bool:
    """Set a waiting trial (its id) running, for this driver; False if another one has it."""
    if is_shared(storage):
        # Before it runs: one that runs without a heartbeat is never found stale. Should another driver
        # record the first heartbeat at the same moment, there is one all the same.
        with suppress(StorageInternalError, SQLAlchemyError):
            storage.record_heartbeat(trial)
    try:
        return storage.set_trial_state_values(trial, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


@contextmanager
def held(storage: RDBStorage, trials: Sequence[int]) -> Iterator[None]:
    """Send heartbeats of these running trials (ids) to other drivers; fail what still runs in the end.

    From a thread: an epoch on a CPU may last longer than any reasonable grace period.
    """
    try:
        if is_shared(storage):
            with _heartbeats(storage, trials):
                yield
        else:
            yield
    finally:
        for trial in trials:
            with suppress(StorageInternalError, SQLAlchemyError, UpdateFinishedTrialError):
                if storage.get_trial(trial).state is TrialState.RUNNING:
                    storage.set_trial_state_values(trial, TrialState.FAIL)


@contextmanager
def _heartbeats(storage: RDBStorage, trials: Sequence[int]) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            # A server that is away for a moment does not end a training.
            with suppress(StorageInternalError, SQLAlchemyError):
                for trial in trials:
                    storage.record_heartbeat(trial)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
    shared: dict[str, Any] = {}
    if kind != "sqlite":
        waits = kind in ("postgresql", "mysql", "mariadb") and "connect_timeout" not in parsed.query
        arguments = {"connect_timeout": _CONNECT_SECONDS} if waits else {}
        shared = {
            "engine_kwargs": {"connect_args": arguments, "pool_pre_ping": True},
            "heartbeat_interval": HEARTBEAT_SECONDS,
            "grace_period": GRACE_SECONDS,
        }
    try:
        with _quiet():
            return RDBStorage(url, **shared)
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
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna's word for heartbeats since 2.9
        yield


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """A database that fails, as a `UserError`."""
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
