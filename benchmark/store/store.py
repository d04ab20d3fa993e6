"""The files of the store under `results/`.

    runs/<data set>/<row>-<key>/run.yaml     the record: specification, data, devices, versions, checksums
    runs/<data set>/<row>-<key>/epochs.csv   train loss and test error of every epoch and seed
    runs/<data set>/<row>-<key>/<name>.csv   a measurement (see `benchmark/engine/jacobian.py`)
    partial/<key>/checkpoint.pt              the checkpoint of an unfinished run (not for version control)

A complete run appears under `runs/` by one rename. Its key is a hash of everything that can change its
numbers, and of nothing else. A key has one folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from benchmark.common.errors import Unreadable, UserError
from benchmark.common.files import atomic_file, inside, refuse_unwritable, sync
from benchmark.store.record import StoredRun, files_of, key_of, read_run, record_of, slug

_DIGEST = hashlib.sha256().digest_size  # a checkpoint begins with the digest of the rest


class Store:
    """The complete and the partial runs below one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._specs: dict[tuple[Path, int], dict[str, Any]] = {}

    def folder(self, key: str) -> Path | None:
        """The folder of a complete run, or None. `UserError` if two folders have this key."""
        found = [folder for folder in self.folders() if folder.name.endswith(f"-{key}")]
        if len(found) > 1:
            raise UserError(f"{found[0]} and {found[1]} are the same run; remove one of them")
        return found[0] if found else None

    def folders(self, dataset: str | None = None) -> list[Path]:
        """The folders of all complete runs, or of those on one data set."""
        runs = self.root / "runs"
        parents = [path for path in inside(runs) if not path.suffix] if dataset is None else [runs / dataset]
        return sorted(path for parent in parents for path in inside(parent) if not path.is_file())

    def spec(self, folder: Path) -> dict[str, Any]:
        """The specification of a complete run. `UserError` if its record is damaged."""
        file = folder / "run.yaml"
        version = folder, file.stat().st_mtime_ns if file.exists() else 0
        if version not in self._specs:
            self._specs[version] = record_of(folder)["spec"]
        return self._specs[version]

    def read(self, folder: Path) -> StoredRun:
        """The complete run in a folder. `UserError` if it is damaged or in the wrong place."""
        try:
            run = read_run(folder)
        except Unreadable:  # restoring it is no advice for a file that may not be read
            raise
        except UserError as error:
            raise UserError(f"{error}; restore {folder}, or delete it to train this run again") from None
        self.folder(run.record["key"])
        home = self.root / "runs" / run.column / f"{slug(run.record['label'])}-{run.record['key']}"
        if folder.parent != home.parent or not folder.name.endswith(f"-{run.record['key']}"):
            raise UserError(f"{folder}: this run belongs in {home}; move it there")
        return run

    def load(self, *keys: str) -> StoredRun | None:
        """The first complete run that has one of the keys. `UserError` if it is damaged."""
        folder = next((found for key in keys if (found := self.folder(key))), None)
        return None if folder is None else self.read(folder)

    def runs(self) -> list[StoredRun]:
        """All complete runs. `UserError` if one is damaged."""
        return [self.read(folder) for folder in self.folders()]

    def problems(self) -> list[str]:
        """The damaged runs of the store, one line for each."""
        found = []
        for folder in self.folders():
            try:
                self.read(folder)
            except UserError as error:
                found.append(str(error))
        return list(dict.fromkeys(found))

    @contextmanager
    def claim(self, key: str, what: str = "") -> Iterator[None]:
        """Hold a run for this process. `UserError` if another process trains it; `what` names the run."""
        lock = self.partial(key) / "lock"
        self._make(lock.parent)
        held = filelock.FileLock(lock, timeout=0)
        try:
            held.acquire()
        except filelock.Timeout:
            named = f"run {key} ({what})" if what else f"run {key}"
            raise UserError(f"{named} is being trained by another process; wait for it, or stop it") from None
        try:
            yield
        finally:
            # Without a checkpoint the folder is removed, while no other process can hold the run.
            if not (lock.parent / "checkpoint.pt").exists():
                shutil.rmtree(lock.parent, ignore_errors=True)
            held.release()

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        """The checkpoint of an unfinished run, or None. `UserError` if it is damaged."""
        file = self.partial(key) / "checkpoint.pt"
        if file not in inside(file.parent):
            return None
        import torch

        try:
            content = file.read_bytes()
            if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
                raise ValueError("checksum")  # torch.load does not notice changed weights
            state: dict[str, Any] = torch.load(
                BytesIO(content[_DIGEST:]), weights_only=True, map_location="cpu"
            )
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            if not os.path.lexists(file):  # finished meanwhile, by the process that held it
                return None
            if isinstance(error, PermissionError):
                raise Unreadable(f"{file}: cannot be read: {error.strerror}") from None
            raise UserError(
                f"{file} is damaged ({type(error).__name__}); delete it to start this run again"
            ) from None
        return state

    def save_checkpoint(self, key: str, state: Mapping[str, Any]) -> None:
        """Replace a run's checkpoint in one step."""
        import torch

        self._make(self.partial(key))
        content = BytesIO()
        torch.save(dict(state), content)
        with atomic_file(self.partial(key) / "checkpoint.pt") as stream:
            stream.write(hashlib.sha256(content.getbuffer()).digest())
            stream.write(content.getbuffer())

    def commit(
        self,
        label: str,
        record: Mapping[str, Any],
        epochs: pd.DataFrame,
        measured: Mapping[str, pd.DataFrame] | None = None,
    ) -> Path:
        """Store a finished run, then remove its checkpoint."""
        spec = record["spec"]
        key = key_of(spec)
        target = self.root / "runs" / spec["dataset"]["name"] / f"{slug(label)}-{key}"
        self._make(target.parent)
        self._make(self.partial(key))
        new = Path(tempfile.mkdtemp(dir=self.partial(key)))
        new.chmod(0o755)
        for name, content in files_of(label, record, epochs, measured or {}).items():
            with atomic_file(new / name) as stream:
                stream.write(content.encode())
        if not target.exists():
            os.rename(new, target)
            sync(target.parent)
        self.forget(key)
        return target

    def forget(self, key: str) -> None:
        """Remove the checkpoint of a run that this process holds."""
        (self.partial(key) / "checkpoint.pt").unlink(missing_ok=True)

    def tidy(self, key: str) -> None:
        """Remove the checkpoint of a stored run: a killed process may have left one."""
        if self.folder(key) is not None:
            self.discard(key)

    def discard(self, key: str) -> None:
        """Remove the checkpoint of a run, unless a process holds it."""
        if self.partial(key).exists():
            with suppress(UserError), self.claim(key):  # the process that holds it tidies up itself
                self.forget(key)

    def partial(self, key: str) -> Path:
        """The folder of an unfinished run."""
        return self.root / "partial" / key

    def refuse_unwritable(self, dataset: str) -> None:
        """`UserError` if runs on a data set cannot be stored, before hours are spent on one."""
        for folder in (self.root / "partial", self.root / "runs" / dataset):
            refuse_unwritable(folder)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"results folder {self.root}: {error.strerror}: {folder}") from None
