"""The sensitivity study's design: random configurations around a row's own (Section "Hyperparameter
Sensitivity"), enumerated from a seed, and the Optuna study that keeps them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.engine.settings import Precision
from benchmark.methods import METHODS
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run, differences

ROWS = ("DTP", "FW-DTP")
COLUMN = "cifar-10"
TRIALS = 100
"""Configurations a method, as in the paper."""
SEED = 1
FACTOR = 5.0
"""log(alpha) ~ U(log(alpha_bar / 5), log(5 alpha_bar)), alpha_bar being the plan's value."""
_NAME = re.compile(r"sensitivity (.+) (\S+) (\d+) epochs seed (\d+)")
"""See `Design.name`."""


@dataclass(frozen=True)
class Design:
    """The configurations of one row on one data set; every one trains from the same seed."""

    plan: str
    run: Run
    """The row's own, with one seed: that of the configurations and of their training."""
    guest: str = ""
    """See `Plan.guest`."""

    @property
    def name(self) -> str:
        """Of the Optuna study."""
        run = self.run
        name = f"sensitivity {run.row} {run.column} {run.epochs} epochs seed {run.seeds[0]}"
        name += "" if run.precision is Precision.HIGHEST else f" {run.precision}"
        return f"{name} plan {self.guest}" if self.guest else name

    @property
    def centre(self) -> dict[str, float]:
        """The plan's hyperparameters, alpha_bar, in the method's order, whatever the plan's."""
        given = self.run.hyperparameters
        names = METHODS[self.run.method].hyperparameters
        return {name: value for name in names if isinstance(value := given.get(name), float)}

    @property
    def record(self) -> dict[str, Any]:
        """Everything that decides what the study holds, the number of trials aside."""
        spec = {name: value for name, value in self.run.spec.items() if name != "hyperparameters"}
        return {"plan": self.plan, "row": self.run.row, "factor": FACTOR, "centre": self.centre, "spec": spec}

    def configuration(self, index: int) -> dict[str, float]:
        """Configuration `index` = 0, 1, ...: whatever their number, and wherever it is drawn, the same.

        Methods share what they can: their first hyperparameters have the same ratio to the centre.
        """
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.run.seeds[0], index])))
        exponents = stream.uniform(-1.0, 1.0, len(self.centre))
        return {
            # Rounding may not leave the bounds.
            name: float(np.clip(value * FACTOR**u, value / FACTOR, value * FACTOR))
            for (name, value), u in zip(self.centre.items(), exponents, strict=True)
        }

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of every hyperparameter, as Optuna words it."""
        return {
            name: FloatDistribution(value / FACTOR, value * FACTOR, log=True)
            for name, value in self.centre.items()
        }

    def replicas(self, indices: Sequence[int]) -> Run:
        """The run that trains these configurations side by side."""
        drawn = [self.configuration(index) for index in indices]
        values = {name: [configuration[name] for configuration in drawn] for name in self.centre}
        return replace(self.run, hyperparameters=values, seeds=self.run.seeds * len(drawn))


def designs(
    plan: Plan, rows: Sequence[str], column: str, epochs: int | None = None, seed: int = SEED
) -> list[Design]:
    """One design a row of the plan; `epochs` other than the plan's own for this study.

    `UserError` where the plan has no hyperparameters for a row, or they have no surroundings.
    """
    found = []
    for row in rows:
        run = plan.run(row, column)
        if run is None:
            raise UserError(f"the plan {plan.source} has no hyperparameters for {row} on {column}")
        for name, value in run.hyperparameters.items():
            if not isinstance(value, float) or not 0.0 < value < float("inf"):
                raise UserError(f"{row} on {column}: {name} {value!r} found, must be finite and above 0")
        run = replace(run, seeds=[seed], epochs=epochs or default_epochs(plan), measure=())
        found.append(Design(Path(plan.source).stem, run, plan.guest))
    return found


def default_rows(plan: Plan) -> list[str]:
    """The rows of Figure 3 that the plan has."""
    return [row for row in ROWS if row in plan.config.rows] or list(plan.config.rows)


def default_column(plan: Plan) -> str:
    """The data set of Figure 3, or the first of a plan that does without it."""
    return COLUMN if COLUMN in plan.config.columns else next(iter(plan.config.columns))


def default_epochs(plan: Plan) -> int:
    """Of the study: what the plan says of it, or else of its runs."""
    return plan.config.sensitivity.epochs or plan.config.protocol.epochs


def default_storage(store: Store) -> str:
    """The URL of the SQLite file beside the store's runs."""
    return optuna_storage.sqlite_url(store.root / "sensitivity.db")


def study_command(plan: Plan, design: Design, *, trials: int = TRIALS, shared_storage: bool = False) -> str:
    """What trains those of the first `trials` configurations of a design that are missing.

    Of a storage other than the store's own its URL is left out, which may hold a password.
    """
    run = design.run
    words = ["--method", run.row, "--dataset", run.column]
    words += [] if plan.source == "table2" else ["--profile", plan.source]
    words += [] if trials == TRIALS else ["--trials", str(trials)]
    words += [] if run.epochs == default_epochs(plan) else ["--epochs", str(run.epochs)]
    words += [] if run.seeds == [SEED] else ["--seed", str(run.seeds[0])]
    words += ["--storage", "URL"] if shared_storage else []
    words += ["--precision", run.precision.value] if "--precision" in plan.changes else []
    return "python -m benchmark.sensitivity " + shlex.join([*words, *plan.options])


def open_study(design: Design, storage: RDBStorage, replicas_per_pass: int) -> optuna.Study:
    """The design's study, made if there is none; `UserError` if it was made for another design.

    What trains side by side is a matter of the study: it decides the last bits of the numbers.
    """
    study = optuna.create_study(
        storage=storage, study_name=design.name, direction="maximize", load_if_exists=True
    )
    check(design, study)
    if "design" not in study.user_attrs:
        study.set_user_attr("replicas_per_pass", replicas_per_pass)
        study.set_user_attr("versions", provenance.versions())
        study.set_user_attr("design", design.record)
    return study


def check(design: Design, study: optuna.Study) -> None:
    """`UserError` that says what differs if the study was made for another design.

    One that a kill left without a design and without trials was made for none yet.
    """
    made_for = study.user_attrs.get("design", {})
    if made_for != design.record and (made_for or study.get_trials(deepcopy=False)):
        raise UserError(
            f"the study {study.study_name!r} was made with {differences(made_for, design.record)}; it is "
            "left as it is: delete it (optuna delete-study), or name another --storage or --results"
        )


def stored(plan: Plan, url: str) -> list[Design]:
    """Those designs of the plan's rows and precision that the storage has a study of, on any data set, of any
    length and from any seed.

    By name: whether a study was made for the design, `check` tells.
    """
    found = []
    for name in optuna_storage.study_names(url):
        match = _NAME.match(name)
        if match is None:
            continue
        row, column, epochs, seed = match.groups()
        if row in plan.config.rows and column in plan.config.columns and plan.run(row, column) is not None:
            (design,) = designs(plan, [row], column, int(epochs), int(seed))
            if design.name == name:
                found.append(design)
    return found


def enqueue(design: Design, study: optuna.Study, trials: int) -> None:
    """Make the first `trials` configurations wait in the study, those that are not in it."""
    gone = (TrialState.FAIL, TrialState.PRUNED)
    known = {
        trial.user_attrs.get("index") for trial in study.get_trials(deepcopy=False) if trial.state not in gone
    }
    for index in range(trials):
        if index not in known:
            waiting = create_trial(
                state=TrialState.WAITING,
                params=design.configuration(index),
                distributions=design.distributions,
                user_attrs={"index": index},
            )
            study.add_trial(waiting)


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """To rounding: `pow` differs in the last digit from one C library to the next."""
    return one.keys() == other.keys() and all(math.isclose(one[n], other[n], rel_tol=1e-12) for n in one)


def complete(design: Design, study: optuna.Study, trials: int) -> dict[int, FrozenTrial]:
    """The complete trials among the first `trials` configurations, by index in rising order.

    Two drivers may have enqueued one configuration at the same moment: the first trial of it counts.
    `UserError` for a trial that is none of the design's.
    """
    found: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        index = trial.user_attrs.get("index")
        if not isinstance(index, int) or not _alike(trial.params, design.configuration(index)):
            raise UserError(
                f"the study {study.study_name!r}: trial {trial.number} is no configuration of the design"
            )
        if index < trials:
            found.setdefault(index, trial)
    return dict(sorted(found.items()))
