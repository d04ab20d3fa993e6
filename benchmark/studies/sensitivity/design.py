"""Design of the sensitivity study: random configurations around a row's own hyperparameters, and their study.

The design follows the paper's Section "Hyperparameter Sensitivity". A seed enumerates the configurations.
"""

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
        """Name of the Optuna study."""
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
        """Everything that decides the study's content, except the number of trials."""
        spec = {name: value for name, value in self.run.spec.items() if name != "hyperparameters"}
        return {"plan": self.plan, "row": self.run.row, "factor": FACTOR, "centre": self.centre, "spec": spec}

    def configuration(self, index: int) -> dict[str, float]:
        """Draw configuration `index` = 0, 1, ..., the same for any number of trials and on any machine.

        The first hyperparameters of all methods have the same ratios to the centre.
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
        """Optuna's distribution of each hyperparameter, by the paper's name."""
        return {
            name: FloatDistribution(value / FACTOR, value * FACTOR, log=True)
            for name, value in self.centre.items()
        }

    def replicas(self, indices: Sequence[int]) -> Run:
        """Build the run that trains these configurations side by side."""
        drawn = [self.configuration(index) for index in indices]
        values = {name: [configuration[name] for configuration in drawn] for name in self.centre}
        return replace(self.run, hyperparameters=values, seeds=self.run.seeds * len(drawn))


def designs(
    plan: Plan, rows: Sequence[str], column: str, epochs: int | None = None, seed: int = SEED
) -> list[Design]:
    """Make one design for each row of the plan. `epochs` replaces the plan's number of epochs.

    `UserError` if a row has no hyperparameters, or if one of them is not finite and above 0.
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
    """List the rows of Figure 3 that the plan has, or all rows if it has none of them."""
    return [row for row in ROWS if row in plan.config.rows] or list(plan.config.rows)


def default_column(plan: Plan) -> str:
    """Name the data set of Figure 3, or the plan's first if it lacks that one."""
    return COLUMN if COLUMN in plan.config.columns else next(iter(plan.config.columns))


def default_epochs(plan: Plan) -> int:
    """Return the plan's epochs for this study, or else those of its runs."""
    return plan.config.sensitivity.epochs or plan.config.protocol.epochs


def default_storage(store: Store) -> str:
    """Write the URL of the SQLite file beside the store's runs."""
    return optuna_storage.sqlite_url(store.root / "sensitivity.db")


def study_command(plan: Plan, design: Design, *, trials: int = TRIALS, shared_storage: bool = False) -> str:
    """Write the shell command that trains the missing ones of the first `trials` configurations.

    The URL of another storage is left out, because it may contain a password.
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
    """Open the design's study, or make it. `UserError` if it was made for another design.

    The study fixes the number of replicas per pass, which decides the last bits of the numbers.
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
    """`UserError` if the study was made for another design. It says what differs.

    A study with neither design nor trials is what a kill left at its start; it passes.
    """
    made_for = study.user_attrs.get("design", {})
    if made_for != design.record and (made_for or study.get_trials(deepcopy=False)):
        raise UserError(
            f"the study {study.study_name!r} was made with {differences(made_for, design.record)}; it is "
            "left as it is: delete it (optuna delete-study), or name another --storage or --results"
        )


def stored(plan: Plan, url: str) -> list[Design]:
    """List the plan's designs that the storage has a study of, for any data set, epochs and seed.

    Studies are found by name; `check` compares their designs.
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
    """Add those of the first `trials` configurations that the study lacks, as waiting trials."""
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
    """Whether configurations are equal up to rounding, which differs between C libraries."""
    return one.keys() == other.keys() and all(math.isclose(one[n], other[n], rel_tol=1e-12) for n in one)


def complete(design: Design, study: optuna.Study, trials: int) -> dict[int, FrozenTrial]:
    """Collect the complete trials among the first `trials` configurations, by index in rising order.

    If an older study has two trials of a configuration, the first counts. `UserError` for a trial whose
    configuration is not the design's.
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
