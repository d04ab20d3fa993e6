"""What the store has of the sensitivity study (Figure 3, Section "Hyperparameter Sensitivity"): each method's
configurations and their test accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from benchmark.common.errors import UserError
from benchmark.common.statistics import shortfall, shortfall_interval
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity.design import (
    FACTOR,
    SEED,
    TRIALS,
    Design,
    check,
    complete,
    default_storage,
    designs,
)
from benchmark.sweep.plan import Plan

NEAR = 2.0
"""Points below a method's best within which a configuration counts as about as good."""
FEWEST = 10
"""Configurations from which on importances and intervals mean something."""


@dataclass(frozen=True)
class Sample:
    """One method's configurations."""

    design: Design
    trials: pd.DataFrame
    """One row a complete configuration: index, every hyperparameter, accuracy (in %), diverged."""

    @cached_property
    def importances(self) -> dict[str, float]:
        """Shares of the variance by hyperparameter (fANOVA, Hutter et al. 2014), summing to one; empty where
        the accuracies do not tell. Takes seconds."""
        return _importances(self.design, self.trials) if len(self.trials) >= FEWEST else {}

    @property
    def row(self) -> str:
        return self.design.run.row

    @property
    def accuracy(self) -> pd.Series[float]:
        return self.trials["accuracy"]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile."""
        first, median, third = self.accuracy.quantile([0.25, 0.5, 0.75])
        return first, median, third

    @property
    def near_best(self) -> float:
        """Share, 0 to 1, of the configurations within `NEAR` points of the best."""
        return float((self.accuracy >= self.accuracy.max() - NEAR).mean())

    @cached_property
    def shortfall(self) -> tuple[float, float, float] | None:
        """See `statistics.shortfall`, in points, and the ends of its 95 % interval; None for too few."""
        if len(self.trials) < FEWEST:
            return None
        accuracy = self.accuracy.to_numpy()
        return float(shortfall(accuracy)), *shortfall_interval(accuracy)


def read_samples(
    plan: Plan,
    store: Store,
    rows: Sequence[str],
    column: str,
    *,
    epochs: int | None = None,
    seed: int = SEED,
    trials: int = TRIALS,
    storage: str | None = None,
) -> list[Sample]:
    """The first `trials` configurations of each row's study, by default of those beside the store's runs.

    One sample a row, in their order; without configurations where there is no study.
    `UserError` for studies of another design, for foreign trials, and for methods trained on different data.
    """
    samples = []
    contents: dict[str, str] = {}
    asked = designs(plan, rows, column, epochs, seed)
    studies = optuna_storage.read_studies(storage or default_storage(store), [d.name for d in asked])
    for design, study in zip(asked, studies, strict=True):
        samples.append(_sample(design, study, trials))
        if study is not None and "data" in study.user_attrs:
            contents[study.user_attrs["data"]] = design.run.row
    if len(contents) > 1:
        listed = ", ".join(f"{row} on {digest[:12]}..." for digest, row in contents.items())
        raise UserError(f"{column}: the studies were trained on different data: {listed}")
    return samples


def _sample(design: Design, study: optuna.Study | None, trials: int) -> Sample:
    found = {}
    if study is not None:
        check(design, study)
        found = complete(design, study, trials)
    rows = [
        {"index": index, **trial.params, "accuracy": trial.value, "diverged": trial.user_attrs["diverged"]}
        for index, trial in found.items()
    ]
    table = pd.DataFrame(rows, columns=["index", *design.centre, "accuracy", "diverged"])
    table["accuracy"] = table["accuracy"].astype(float).round(6)  # 100 - 57.1 is not quite 42.9
    return Sample(design, table)


def _importances(design: Design, table: pd.DataFrame) -> dict[str, float]:
    """fANOVA's importances, with respect to the logarithms: the design is uniform in them."""
    if table["accuracy"].nunique() < 2:
        return {}
    from optuna.importance import (  # scikit-learn takes a second
        FanovaImportanceEvaluator,
        get_param_importances,
    )

    bounds = {
        name: FloatDistribution(math.log(value / FACTOR), math.log(value * FACTOR))
        for name, value in design.centre.items()
    }
    logarithmic = optuna.create_study(direction="maximize")
    for trial in table.to_dict("records"):
        drawn = {name: _within(math.log(trial[name]), bounds[name]) for name in bounds}
        logarithmic.add_trial(create_trial(params=drawn, distributions=bounds, value=trial["accuracy"]))  # type: ignore[arg-type]
    evaluator = FanovaImportanceEvaluator(seed=0)
    found = get_param_importances(logarithmic, evaluator=evaluator)
    return {name: float(found[name]) for name in bounds}


def _within(value: float, bounds: FloatDistribution) -> float:
    return min(max(value, bounds.low), bounds.high)
