"""The tiny plan with a second epoch, its runs as folders of a store, and their bytes."""

from pathlib import Path

from benchmark.engine.samples import Dataset
from benchmark.store.store import Store
from benchmark.sweep.execute import execute
from benchmark.sweep.run import Run
from tests.helpers import tiny
from tests.helpers.tiny import CPU

PLAN = tiny.PLAN.replace("epochs: 1", "epochs: 2")


def train(run: Run, data: Dataset, store: Store) -> Path:
    execute(run, data, store, CPU, lambda done, result: None, checkpoint_seconds=0.0)
    folder = store.folder(run.key)
    assert folder is not None
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
