"""A search's design: which configurations are tried, and the Optuna study that keeps them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmark.common.errors import UserError
from benchmark.config import SearchSpace
from benchmark.methods import METHODS
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.search.halving import Configuration
from benchmark.sweep.run import Run, differences

UNDER_WAY = "under way"
"""The study's attribute that holds the wave between being drawn and being told."""
EXACT = "exact"
"""A trial's attribute: a plan takes its values digit by digit. Those of earlier versions are rounded."""


@dataclass(frozen=True)
class Search:
    """What is searched for one row on one data set."""

    run: Run
    space: SearchSpace
    validation_samples: int
    seed: int
    guest: str = ""
    """See `Plan.guest`."""

    @property
    def name(self) -> str:
        """Of the Optuna study."""
        return f"{self.run.row} on {self.run.column}"

    @property
    def design(self) -> dict[str, Any]:
        """Everything but the number of trials that decides what the study holds."""
        varied = ("hyperparameters", "seeds", "epochs", "measure")
        spec = {name: value for name, value in self.run.spec.items() if name not in varied}
        space = self.space.model_dump(exclude={"trials"}, exclude_none=True)
        judged = f"over the last 1/{self.space.reduction} of the epochs"
        own = {"validation_samples": self.validation_samples, "seed": self.seed, "judged": judged}
        return {**spec, **own, "space": space}

    def check(self, file: Path) -> None:
        """`UserError` unless the space is one of the row's hyperparameters."""
        allowed = METHODS[self.run.method].hyperparameters
        if set(self.space.names) != set(allowed):
            raise UserError(
                f"{file}: rows.{self.run.row}: {', '.join(self.space.names)} found, "
                f"{self.run.method} takes {', '.join(allowed)}"
            )

    def entry(self, values: Configuration, note: str) -> dict[str, Any]:
        """A configuration as a plan's entry."""
        ordered: dict[str, Any] = {name: values[name] for name in METHODS[self.run.method].hyperparameters}
        if self.space.options:
            ordered["options"] = {name: values[name] for name in self.space.options}
        return {**ordered, "source": "search", "note": note}

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The combinations of structural options that are compared; one empty one without options."""
        names = list(self.space.options)
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*self.space.options.values())
        ]

    @property
    def trials(self) -> int:
        """Number of configurations in all."""
        grid = self.space.grid
        each = self.space.trials if grid is None else math.prod(map(len, grid.values()))
        return each * len(self.choices)

    @property
    def wave(self) -> int:
        """Configurations trained side by side; a grid is one batch."""
        return self.space.wave if self.space.grid is None else self.trials // len(self.choices)

    def known(self) -> list[Configuration]:
        """What is tried whatever comes out: the whole grid, or the values that the plan has now."""
        grid = self.space.grid
        if grid is None and not self.run.hyperparameters:
            return []
        if grid is None:
            return [{name: float(value) for name, value in self.run.hyperparameters.items()}]  # type: ignore[arg-type]
        return [
            dict(zip(grid, map(float, values), strict=True)) for values in itertools.product(*grid.values())
        ]

    @property
    def ends(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value of each hyperparameter."""
        space = self.space.ranges or self.space.grid or {}
        return {name: (min(values), max(values)) for name, values in space.items()}

    def distributions(self, configuration: Configuration | None = None) -> dict[str, BaseDistribution]:
        """Log-uniform between the ends; wider where a configuration lies outside."""
        found: dict[str, BaseDistribution] = {}
        for name, reached in self.ends.items():
            values = reached if configuration is None else (*reached, configuration[name])
            found[name] = FloatDistribution(min(values), max(values), log=True)
        return found

    def choice(self, done: Sequence[FrozenTrial]) -> dict[str, Any]:
        """The structural options of the next wave: the combination with the fewest trials so far."""
        return min(self.choices, key=lambda choice: sum(_has(trial, choice) for trial in done))

    def trial(self, configuration: Configuration, errors: Sequence[float], device: str) -> FrozenTrial:
        """A configuration and its errors, rung by rung, as the study keeps them."""
        return create_trial(
            params=dict(configuration),
            distributions={
                **self.distributions(configuration),
                **{name: CategoricalDistribution(values) for name, values in self.space.options.items()},
            },
            value=errors[-1],
            state=TrialState.COMPLETE if len(errors) == len(self.space.rungs) else TrialState.PRUNED,
            intermediate_values=dict(zip(self.space.rungs, errors, strict=False)),
            user_attrs={"device": device, EXACT: True},
        )

    def draw(self, done: Sequence[FrozenTrial]) -> list[Configuration]:
        """The next wave's configurations: hyperparameters and the wave's structural options.

        What is tried whatever comes out is first, and then what Optuna's TPE draws within the ranges, from
        what was done within them; at random until that is a wave. Four digits, as a plan has them.
        """
        choice = self.choice(done)
        done = [trial for trial in done if _has(trial, choice)]
        if self.space.ranges is None:
            grid = [{**point, **choice} for point in self.known()]
            return [point for point in grid if point not in [trial.params for trial in done]]
        ends, distributions = self.ends, self.distributions()
        seen = [
            create_trial(
                params={name: trial.params[name] for name in ends},
                distributions=distributions,
                value=trial.value,
                state=trial.state,
                intermediate_values=trial.intermediate_values,
            )
            for trial in done
            if all(low <= trial.params[name] <= high for name, (low, high) in ends.items())
        ]
        # A sampler seeded once would draw the same in every process.
        sampler = optuna.samplers.TPESampler(
            seed=self.seed + len(done),
            n_startup_trials=len(seen) + 1 if len(done) < self.space.wave else 1,
            multivariate=True,
            constant_liar=True,  # so that the draws of a wave, none told yet, lie apart
        )
        sampled = optuna.create_study(sampler=sampler)
        sampled.add_trials(seen)
        first = [] if done else self.known()
        size = min(self.space.wave, self.space.trials - len(done))
        drawn = [sampled.ask(distributions).params for _ in range(size - len(first))]
        short = [{name: _short(value, *ends[name]) for name, value in d.items()} for d in drawn]
        return [{**values, **choice} for values in [*first, *short]]

    @contextmanager
    def study(self, store: Store) -> Iterator[optuna.Study]:
        """The Optuna study in `<store>/search/<data set>/<row>.db`, for this process alone.

        `UserError` if another process searches there, if the study was made for another design, or if it is
        gone and what it found is not.
        """
        file = self.file(store)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.refuse_lost(store)
        with optuna_storage.driver(optuna_storage.sqlite_url(file)) as storage:
            study = optuna.create_study(storage=storage, study_name=self.name, load_if_exists=True)
            made_for = study.user_attrs.get("design")
            if made_for is None:
                study.set_user_attr("design", self.design)
            elif (made_for := {"judged": "by the last epoch", **made_for}) != self.design:
                raise UserError(
                    f"{file}: this search was made with {differences(made_for, self.design)}; "
                    "search with another --results folder, or delete the file to begin anew"
                )
            yield study

    def refuse_lost(self, store: Store) -> None:
        """`UserError` if the study is gone and what it found is not, which another would write over."""
        file = self.file(store)
        if file.exists() and file.stat().st_size:
            return
        found = [str(f) for f in map(file.with_suffix, (".csv", ".patch")) if f.exists()]
        if found:
            state = "empty" if file.exists() else "not there"
            raise UserError(
                f"{file}: {state}, but what its search found is; put it back, or move "
                f"{' and '.join(found)} away to search anew"
            )

    def file(self, store: Store) -> Path:
        """The study's database."""
        return self.folder(store) / f"{slug(self.run.row)}.db"

    def folder(self, store: Store) -> Path:
        """Where the search keeps what it finds."""
        return store.root / "search" / self.guest / self.run.column


def kept(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: those that were trained."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _has(trial: FrozenTrial, choice: Mapping[str, Any]) -> bool:
    """Whether a trial has these structural options."""
    return all(trial.params.get(name) == value for name, value in choice.items())


def _short(value: float, low: float, high: float) -> float:
    """With four digits, and still within the range."""
    return min(max(float(f"{value:.4g}"), low), high)
