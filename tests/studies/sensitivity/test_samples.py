"""Studies made up for the purpose, read back: importances worked out by hand, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.common.errors import UserError
from benchmark.studies.sensitivity import design as sensitivity_design
from benchmark.studies.sensitivity.samples import read_samples
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import fill_study


def select(folder: Path) -> Selection:
    return Selection("table2", folder / "results")


@pytest.mark.parametrize("decisive", ["lr", "stepsize"])
def test_importance_finds_what_matters(tmp_path: Path, decisive: str) -> None:
    chosen = select(tmp_path)
    (made,) = sensitivity_design.designs(chosen.plan, ["FW-DTP"], "cifar-10")
    accuracies = [
        30.0 + 5.0 * np.log(made.configuration(index)[decisive] / made.centre[decisive])
        for index in range(60)
    ]
    fill_study(chosen, "FW-DTP", accuracies)
    first, again = (read_samples(chosen.plan, chosen.store, ["FW-DTP"], "cifar-10")[0] for _ in range(2))
    assert list(first.importances) == ["lr", "stepsize"]
    assert sum(first.importances.values()) == pytest.approx(1.0)
    assert first.importances[decisive] > 0.95
    assert again.importances == first.importances


def test_only_the_first_configurations_count(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [40.0, 57.1, 43.0], diverged=[1])
    sample, none = read_samples(chosen.plan, chosen.store, ["DTP", "FW-DTP"], "cifar-10", trials=2)
    assert sample.trials[["index", "accuracy", "diverged"]].to_numpy().tolist() == [
        [0, 40.0, False],
        [1, 57.1, True],
    ]
    assert len(none.trials) == 0


def test_mixed_data_are_refused(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill_study(chosen, "DTP", [40.0])
    fill_study(chosen, "FW-DTP", [40.0], data="e" * 64)
    with pytest.raises(UserError, match=r"cifar-10: the studies were trained on different data"):
        read_samples(chosen.plan, chosen.store, ["DTP", "FW-DTP"], "cifar-10")
