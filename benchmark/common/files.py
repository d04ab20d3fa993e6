"""Read files, replace them in one step, and check folders before hours of training."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.common.errors import Unreadable, UserError

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "results"
FIGURES = PROJECT / "figures"


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def refuse_unwritable(folder: Path) -> None:
    """`UserError` if no file can be made in a folder. The folder need not exist yet."""
    there = existing(folder)
    within = "" if there == folder else f" for {folder}"
    if not there.is_dir():
        raise UserError(f"{there}: a folder is needed here{within}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} cannot be written to{within}")


def inside(folder: Path) -> list[Path]:
    """The contents of a folder of the store, without hidden files. Empty if the folder does not exist.

    `UserError` if the folder cannot be read: its contents must not be taken for missing.
    """
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError as error:
        if not folder.is_symlink():
            return []
        reason = error.strerror
    except OSError as error:
        reason = error.strerror
    raise UserError(f"{folder}: {reason}; a readable folder of the store belongs here, or nothing")


def read_text(file: Path) -> str:
    """The text of a file. `UserError` if it does not exist or cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except PermissionError as error:
        raise Unreadable(f"{file}: cannot be read: {error.strerror}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None


@contextmanager
def atomic_file(target: Path) -> Iterator[Any]:
    """A binary stream whose content replaces `target` as a whole, or not at all.

    `OSError` names `target` if it cannot be written, for example on a full disk.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as new:
            try:
                yield new
                new.flush()
                os.fsync(new.fileno())
                os.chmod(new.name, 0o644)
                os.replace(new.name, target)
            except BaseException:
                os.unlink(new.name)
                raise
        sync(target.parent)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}; what was stored before is kept"
        raise OSError(error.errno, what, str(target)) from error


def sync(folder: Path) -> None:
    """Make a rename in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
