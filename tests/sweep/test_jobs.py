"""Commands that train what a plan misses, each by itself."""

import shlex
from pathlib import Path

import pytest

from benchmark.engine.samples import Dataset
from benchmark.sweep.execute import execute
from benchmark.sweep.jobs import Jobs, commands
from benchmark.sweep.selection import Selection
from tests.helpers.tiny import CPU, MINI, PLAN, picked, select, train

THREE = PLAN.replace("seeds: [1, 2]", "seeds: [1, 2, 3]")


def listed(chosen: Selection, each: Jobs) -> list[str]:
    """Row and seeds of every command; of all that are asked for where it names none."""
    found = []
    for command in commands(chosen.statuses(), chosen.plan, chosen.store, each):
        words = shlex.split(command)
        assert words[:4] == ["python", "-m", "benchmark", "run"]
        options = dict(zip(words[5::2], words[6::2], strict=True))
        found.append(f"{options['--method']} {options.get('--seeds', 'all')}")
        assert options["--dataset"] == MINI
    return found


def test_rows_and_seeds_that_are_missing(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path, THREE)
    assert listed(chosen, Jobs.ROWS) == ["BP all", "DTP all"]
    every = [f"{row} {seed}" for row in ("BP", "DTP") for seed in (1, 2, 3)]
    assert listed(chosen, Jobs.SEEDS) == every
    train(select(tmp_path, THREE, seeds="2"), data)
    assert listed(chosen, Jobs.ROWS) == ["BP all", "DTP all"]
    assert listed(chosen, Jobs.SEEDS) == ["BP 1", "BP 3", *every[3:]]
    train(chosen, data)
    assert listed(chosen, Jobs.ROWS) == ["DTP all"]
    assert listed(chosen, Jobs.SEEDS) == every[3:]


@pytest.mark.parametrize("stored", ["13", "123"])
def test_the_row_s_own_command_puts_seeds_together(tmp_path: Path, data: Dataset, stored: str) -> None:
    """It trains the last one, if it is not stored."""
    for seed in stored:
        train(select(tmp_path, THREE, seeds=seed), data)
    assert listed(select(tmp_path, THREE, method=["BP"]), Jobs.SEEDS) == ["BP all"]


def test_a_row_under_way_goes_on(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path, THREE)

    def stop(done: int, result: object) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(picked(chosen, "DTP"), data, chosen.store, CPU, stop, checkpoint_seconds=0.0)
    assert listed(chosen, Jobs.SEEDS) == ["BP 1", "BP 2", "BP 3", "DTP all"]


def test_what_was_given_is_passed_on(tmp_path: Path) -> None:
    chosen = select(tmp_path, THREE, method=["BP"], epochs=7, seeds="2,5")
    first, second = commands(
        chosen.statuses(), chosen.plan, chosen.store, Jobs.SEEDS, "--data-root", "my data"
    )
    where = shlex.join(["--results", str(tmp_path / "results")])
    start = shlex.join(["python", "-m", "benchmark", "run", chosen.plan.source])
    assert first == f"{start} --method BP --dataset {MINI} --epochs 7 --seeds 2 {where} --data-root 'my data'"
    assert second == first.replace("--seeds 2", "--seeds 5")
