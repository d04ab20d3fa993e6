"""Train the missing runs on a data set and print what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from benchmark import datasets
from benchmark.common.errors import DataNotFound, UserError
from benchmark.common.progress import console, progress_bar
from benchmark.engine.settings import Compile
from benchmark.store.record import StoredRun
from benchmark.store.store import Store
from benchmark.sweep.execute import Progress, collect, execute
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, Status


def train_dataset(
    chosen: Selection,
    name: str,
    statuses: Sequence[Status],
    data_root: Path | None,
    device: torch.device,
    compile: Compile,
    replicas_per_pass: int | None,
    *,
    download: bool,
) -> list[str]:
    """Train the missing runs on the data set `name`. Returns one message for each run that failed."""
    config, store = chosen.plan.datasets[name], chosen.store
    stored = [found.run for found in statuses if found.state is State.STORED]
    failures: list[str] = []
    waiting = [found.run for found in statuses if found.state not in (State.STORED, State.DAMAGED)]
    for run in list(waiting):
        with suppress(UserError):  # reported below, when it is trained
            if collect(run, store):
                console.print(f"{name}: {run.row} assembled from its stored seeds", markup=False)
                waiting.remove(run)
                stored.append(run)
    for run in stored:
        store.tidy(run.key)
    pinned = config.checksum is not None or config.kind == "torchvision"
    if stored and len(stored) == len(statuses):
        rows = f"{len(stored)} row{'s' * (len(stored) != 1)}"
        console.print(f"{name}: {rows} stored, nothing to train", markup=False)
    if not waiting and (pinned or not stored):
        return failures
    if waiting:
        store.refuse_unwritable(name)
    try:
        data = datasets.load(name, config, data_root=data_root, device=device, download=download)
    except DataNotFound:
        if waiting:
            raise
        return failures  # nothing to train, so that no data are needed
    console.print(
        f"{name}: {len(data.train)} + {len(data.test)} images, {data.source}, checksum {data.checksum}",
        markup=False,
    )
    before = [] if pinned else _undeclared(store, name, config.image)
    seen = {run.folder: run.record["data"]["checksum"] for run in before}
    if other := {folder: checksum for folder, checksum in seen.items() if checksum != data.checksum}:
        raise UserError(
            *(f"{folder} was trained on other images (checksum {c[:12]}...)" for folder, c in other.items()),
            f"{name}: {data.source} holds images of checksum {data.checksum[:12]}... now; "
            "delete these runs, or give the new images their own name in datasets.yaml",
        )
    begun = {found.run.key: found.detail for found in statuses if found.state is State.PARTIAL}
    for number, run in enumerate(waiting, 1):
        if run.key in begun:
            console.print(f"{run.row} resumes: {begun[run.key]}", markup=False)
        try:
            with progress_bar(console, f"{number}/{len(waiting)} {run.row}", run.total_epochs) as update:
                execute(run, data, store, device, advance(update), compile, replicas_per_pass)
        except UserError as error:
            failures.append(str(error))
            continue
        result = store.load(run.key)
        assert result is not None
        console.print(
            f"  {result.folder.relative_to(chosen.root)}: {_errors(list(result.final['test_error']))}"
            + (f", {diverged} diverged" if (diverged := int(result.final["diverged"].sum())) else ""),
            markup=False,
        )
    return failures


def _undeclared(store: Store, name: str, image: list[int]) -> Iterator[StoredRun]:
    """The intact runs on a data set whose checksum is not declared in `datasets.yaml`."""
    for folder in store.folders(name):
        with suppress(UserError):
            run = store.read(folder)
            if run.spec["dataset"] == {"name": name, "image": image, "checksum": None}:
                yield run


def advance(update: Callable[[int, str], None]) -> Progress:
    """A progress callback that shows the last epoch's test error beside the bar."""
    return lambda done, result: update(done, "" if result is None else _errors(result.test_error))


def _errors(errors: Sequence[float]) -> str:
    return f"test error {sum(errors) / len(errors):.2f} % over {len(errors)} seed{'s' * (len(errors) > 1)}"
