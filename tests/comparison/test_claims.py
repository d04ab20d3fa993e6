"""The ledger of claims, on stores made up for it."""

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
import yaml
from optuna.trial import create_trial
from rich.console import Console
from scipy import stats

from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.comparison.claims import ClaimVerdict, Judgement, Ledger, Part, verify
from benchmark.comparison.evidence import Evidence, NoData
from benchmark.config import CONFIGS, PaperTable, load_claims, load_datasets, load_paper_values
from benchmark.report import claims as report
from benchmark.report import contents
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity.design import designs, open_study
from benchmark.studies.timing import costs
from benchmark.studies.timing import points as timing_points
from benchmark.studies.timing.costs import Cost
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import record_of

CPU = torch.device("cpu")
PAPER = load_paper_values()["table2"]
PLAN = """
title: Made up
comparable: true
protocol: {epochs: 20, batch_size: 256, seeds: [1, 2, 3, 4, 5], source: guess}
networks:
  2x8: {hidden_layers: 2, width: 8, source: guess}
columns:
  mnist: {network: 2x8}
  fashion-mnist: {network: 2x8, hyperparameters_from: mnist}
margins: {mnist: 0.3}
measure:
  jacobian: {rows: [DTP, FW-DTP], columns: [mnist]}
rows:
  BP: {method: BP, hyperparameters: {mnist: {lr: 0.1, source: search}}}
  TP: &dtp
    method: TP
    hyperparameters:
      mnist: {lr: 1.0, stepsize: 0.07, lr_feedback: 0.01, noise_std: 0.02, source: search}
  DTP: {<<: *dtp, method: DTP}
  DRL: {<<: *dtp, method: DRL}
  FW-DTP: {method: FW-DTP, hyperparameters: {mnist: {lr: 0.1, stepsize: 0.04, source: paper}}}
"""
LOW, HIGH = [2.7, 2.8, 2.75, 2.9, 2.6], [3.1, 3.25, 3.2, 3.3, 3.05]


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    return select(tmp_path)


def select(folder: Path, text: str = PLAN, **options: Any) -> Selection:
    plan = folder / "made up.yaml"
    plan.write_text(text)
    given = {"dataset": None, "method": None, "seeds": None, "epochs": None, **options}
    return Selection(str(plan), folder / "results", **given)


def store(
    chosen: Selection,
    row: str,
    errors: Sequence[float],
    column: str = "mnist",
    *,
    diverged: int = 0,
    data: str = "d" * 64,
    spectrum: Mapping[str, Any] | None = None,
) -> Path:
    """Commit a run with these final errors; `spectrum`: what is not the default of its Jacobians."""
    run = chosen.plan.run(row, column)
    assert run is not None
    lines = [
        [epoch, seed, 0.5, error if epoch == run.epochs else 99.0, position < diverged]
        for epoch in range(1, run.epochs + 1)
        for position, (seed, error) in enumerate(zip(run.seeds, errors, strict=True))
    ]
    measured = {"jacobian": jacobians(run.epochs, run.seeds, **spectrum or {})} if run.measure else None
    record = record_of(run, data)
    table = pd.DataFrame(lines, columns=list(EPOCH_COLUMNS))
    return chosen.store.commit(row, record, table, measured)


def jacobians(epochs: int, seeds: Sequence[int], **changed: Any) -> pd.DataFrame:
    """Two encoders in both conventions; by default nothing that a check could object to.

    A changed quantity is a number, or a function of epoch, seed and encoder, in the released convention.
    """
    usual = {"trace": lambda e, s, l: 1.0 + e + s, "nonnegative": 1.0, "nonnegative_symmetric": 1.0}
    lines = []
    for epoch in range(epochs + 1):
        for seed in seeds:
            for encoder in (2, 3):
                for statistics in ("sample", "batch"):
                    line = {"epoch": epoch, "seed": seed, "encoder": encoder, "statistics": statistics}
                    for name, value in {**usual, **changed}.items():
                        number = value(epoch, seed, encoder) if callable(value) else value
                        line[name] = number if statistics == "sample" else -7.0
                    lines.append(line)
    return pd.DataFrame(lines)


def judged(chosen: Selection, check: Mapping[str, Any], **claim: Any) -> Judgement:
    """The judgement on a single claim with this check."""
    given = {"section": "A", "quote": "B", "check": dict(check), "margin": 0, "reason": "C", **claim}
    file = chosen.root.parent / "claims.yaml"
    file.write_text(yaml.safe_dump({"it": given}))
    (judgement,) = verify(chosen.plan, chosen.store, PAPER, file).judgements
    return judgement


BEATS = {"kind": "lower_error", "rows": ["FW-DTP"], "against": ["DTP"], "columns": ["mnist"]}


# ---- differences of test errors


def test_a_lower_error_is_supported_with_its_numbers(chosen: Selection) -> None:
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    found = judged(chosen, BEATS)
    assert found.verdict is ClaimVerdict.SUPPORTED
    (part,) = found.parts
    assert part.where == "MNIST: FW-DTP against DTP"
    test = stats.ttest_rel(LOW, HIGH, alternative="less")
    low, high = stats.ttest_rel(LOW, HIGH).confidence_interval(0.95)
    assert part.numbers == (
        f"2.75 against 3.18 %, difference -0.43 [{low:+.2f}, {high:+.2f}] over 5 seeds, asked: < 0, "
        f"p = {test.pvalue:.2g}"
    )
    assert (part.kept, part.late) == (1, 20)
    assert part.commands == ()


def test_the_opposite_and_chance_are_not_supported(chosen: Selection) -> None:
    store(chosen, "FW-DTP", HIGH)
    store(chosen, "DTP", LOW)
    assert judged(chosen, BEATS).verdict is ClaimVerdict.NOT_SUPPORTED
    store(chosen, "DRL", [3.11, 3.24, 3.22, 3.29, 3.05])
    chance = judged(chosen, {**BEATS, "against": ["DRL"]})
    assert chance.verdict is ClaimVerdict.NOT_SUPPORTED
    assert "difference +0.00 [-0.0" in chance.parts[0].numbers


def test_seeds_are_paired(chosen: Selection) -> None:
    """A small difference in every seed, between rows that vary much more from seed to seed."""
    store(chosen, "FW-DTP", [1.0, 2.0, 3.0, 4.0, 5.0])
    store(chosen, "DTP", [1.11, 2.1, 3.09, 4.1, 5.1])
    assert judged(chosen, BEATS).verdict is ClaimVerdict.SUPPORTED
    unpaired = stats.ttest_ind([1.0, 2.0, 3.0, 4.0, 5.0], [1.11, 2.1, 3.09, 4.1, 5.1], alternative="less")
    assert unpaired.pvalue > 0.4


def test_a_row_of_the_same_errors(chosen: Selection) -> None:
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", LOW)
    assert judged(chosen, BEATS).verdict is ClaimVerdict.NOT_SUPPORTED
    store(chosen, "TP", [error + 1 for error in LOW])
    # No spread, no test: by chance three seeds of 1,000 test samples can have the same difference.
    (part,) = judged(chosen, {**BEATS, "against": ["TP"]}).parts
    assert part.verdict is ClaimVerdict.NOT_SUPPORTED
    assert "difference -1.00 on all seeds: no test, asked: < 0" in part.numbers
    (part,) = judged(chosen, {**BEATS, "kind": "close_error", "within": 5, "against": ["TP"]}).parts
    assert part.verdict is ClaimVerdict.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(0, ClaimVerdict.NOT_SUPPORTED), (0.4, ClaimVerdict.NOT_SUPPORTED), (0.6, ClaimVerdict.SUPPORTED)],
)
def test_a_margin_lets_the_error_be_higher(chosen: Selection, margin: float, verdict: ClaimVerdict) -> None:
    store(chosen, "FW-DTP", HIGH)
    store(chosen, "DTP", LOW)
    assert judged(chosen, BEATS, margin=margin).verdict is verdict


def test_the_margin_of_the_plan(chosen: Selection) -> None:
    for column in ("mnist", "fashion-mnist"):
        store(chosen, "FW-DTP", [2.91, 2.9, 2.92, 2.9, 2.9], column)
        store(chosen, "DTP", [2.8] * 5, column)
    found = judged(chosen, {**BEATS, "columns": ["mnist", "fashion-mnist"]}, margin="plan")
    assert [part.verdict for part in found.parts] == [ClaimVerdict.SUPPORTED, ClaimVerdict.NO_DATA]
    assert found.parts[1].numbers == "the plan declares no margin for F-MNIST"


def test_holm_over_the_parts_of_a_claim(chosen: Selection) -> None:
    barely = [3.2, 2.9, 2.4, 3.0, 3.1]
    store(chosen, "FW-DTP", [2.5] * 5)
    store(chosen, "DTP", barely)
    for row, shift in (("TP", 0.0), ("DRL", -0.5)):
        store(chosen, row, [error + shift for error in barely])
    raw = stats.ttest_1samp(np.array(barely) - 2.5, 0, alternative="greater").pvalue
    assert 0.05 / 2 > raw > 0.05 / 3
    assert judged(chosen, BEATS).verdict is ClaimVerdict.SUPPORTED
    two = judged(chosen, {**BEATS, "against": ["DTP", "TP"]})
    assert two.verdict is ClaimVerdict.SUPPORTED
    three = judged(chosen, {**BEATS, "against": ["DTP", "TP", "DRL"]})
    assert {part.verdict for part in three.parts} == {ClaimVerdict.NOT_SUPPORTED}
    assert three.parts[0].numbers.endswith(f"p = {raw:.2g}, corrected {3 * raw:.2g}")


def test_close_errors(chosen: Selection) -> None:
    check = {**BEATS, "kind": "close_error", "within": 0.1}
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", [error + 0.05 for error in LOW[:4]] + [LOW[4] + 0.06])
    store(chosen, "DRL", HIGH)
    assert judged(chosen, check).verdict is ClaimVerdict.SUPPORTED
    far = {**check, "against": ["DRL"]}
    assert judged(chosen, far).verdict is ClaimVerdict.NOT_SUPPORTED
    assert judged(chosen, far, margin=0.5).verdict is ClaimVerdict.SUPPORTED
    (part,) = judged(chosen, far, margin=0.5).parts
    assert "asked: within 0.6" in part.numbers
    assert (part.kept, part.late) == (1, 20)  # before the last epoch all are at 99 %: no test


@pytest.mark.parametrize("diverged", [1, 5])
def test_rows_with_diverged_seeds_are_not_tested(chosen: Selection, diverged: int) -> None:
    """As in Table 2 and between rows: an error at chance is no measurement of the method's."""
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", [*[90.2] * diverged, *HIGH[diverged:]], diverged=diverged)
    found = judged(chosen, BEATS)
    assert found.parts[0].numbers == f"no test: {diverged} of DTP diverged"
    assert found.verdict is ClaimVerdict.NO_DATA


def test_diverged_seeds_of_a_single_row_count_and_are_named(chosen: Selection) -> None:
    store(chosen, "TP", [90.2] * 5, diverged=5)
    found = judged(chosen, {**FAILS, "above": 50})
    assert "5 of TP diverged" in found.parts[0].numbers
    assert found.verdict is ClaimVerdict.SUPPORTED


FAILS = {"kind": "measured", "of": "test_error", "rows": ["TP"], "columns": ["mnist"]}


def test_guessed_hyperparameters_are_named(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN.replace("source: search", "source: guess"))
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    store(chosen, "TP", [90.0] * 5)
    numbers = judged(chosen, BEATS).parts[0].numbers
    assert "5 seeds, hyperparameters of DTP guessed, asked" in numbers
    assert "of TP guessed" in judged(chosen, {**FAILS, "above": 50}).parts[0].numbers


# ---- what is missing


def test_nothing_stored(chosen: Selection) -> None:
    found = judged(chosen, BEATS)
    assert found.verdict is ClaimVerdict.NO_DATA
    (part,) = found.parts
    assert part.numbers == "FW-DTP on MNIST is not stored; DTP on MNIST is not stored"
    assert [command.split("--method ")[1].split()[0] for command in part.commands] == ["FW-DTP", "DTP"]
    store(chosen, "FW-DTP", LOW)
    assert judged(chosen, BEATS).parts[0].numbers == "DTP on MNIST is not stored"


def test_a_claim_on_two_data_sets_with_data_for_one(chosen: Selection) -> None:
    both = {**BEATS, "columns": ["mnist", "fashion-mnist"]}
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    found = judged(chosen, both)
    assert found.verdict is ClaimVerdict.INCOMPLETE
    assert [part.verdict for part in found.parts] == [ClaimVerdict.SUPPORTED, ClaimVerdict.NO_DATA]
    store(chosen, "FW-DTP", HIGH, "fashion-mnist")
    store(chosen, "DTP", LOW, "fashion-mnist")
    found = judged(chosen, both)
    assert found.verdict is ClaimVerdict.NOT_SUPPORTED
    assert [part.verdict for part in found.parts] == [ClaimVerdict.SUPPORTED, ClaimVerdict.NOT_SUPPORTED]


def test_one_that_fails_decides_whatever_is_missing(chosen: Selection) -> None:
    store(chosen, "FW-DTP", HIGH)
    store(chosen, "DTP", LOW)
    assert judged(chosen, {**BEATS, "columns": ["mnist", "cifar-10"]}).verdict is ClaimVerdict.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("need", "verdicts", "verdict"),
    [
        ("all", "SS", "SUPPORTED"),
        ("all", "SD", "INCOMPLETE"),
        ("all", "DD", "NO DATA"),
        ("all", "SN", "NOT SUPPORTED"),
        ("all", "SND", "NOT SUPPORTED"),
        ("any", "SND", "SUPPORTED"),
        ("any", "NN", "NOT SUPPORTED"),
        ("any", "ND", "INCOMPLETE"),
        ("any", "DD", "NO DATA"),
    ],
)
def test_all_or_any(chosen: Selection, need: Any, verdicts: str, verdict: str) -> None:
    of = {"S": ClaimVerdict.SUPPORTED, "N": ClaimVerdict.NOT_SUPPORTED, "D": ClaimVerdict.NO_DATA}
    claim = judged(chosen, BEATS).claim.model_copy(update={"need": need})
    assert Judgement("it", claim, [Part("", "", of[v], ()) for v in verdicts]).verdict == verdict


def test_a_plan_without_the_row_or_data_set(chosen: Selection) -> None:
    found = judged(chosen, {**BEATS, "against": ["L-DRL"], "columns": ["mnist", "cifar-10"]})
    assert found.parts[0].numbers == "FW-DTP on MNIST is not stored; the plan has no L-DRL on MNIST"
    assert found.parts[1].numbers == ("the plan has no FW-DTP on CIFAR-10; the plan has no L-DRL on CIFAR-10")


def test_one_seed_is_no_data(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN.replace("[1, 2, 3, 4, 5]", "[1]"))
    store(chosen, "FW-DTP", [2.0])
    store(chosen, "DTP", [3.0])
    found = judged(chosen, BEATS)
    assert found.verdict is ClaimVerdict.NO_DATA
    assert found.parts[0].numbers == "no test: 1 seed stored, 2 needed"


# ---- measurements


SPECTRUM = {"kind": "measured", "rows": ["DTP"], "columns": ["mnist"], "encoders": [2, "last"]}


def test_every_seed_is_within_bounds(chosen: Selection) -> None:
    store(chosen, "TP", [79.0, 80.0, 78.0, 81.0, 52.0])
    found = judged(chosen, {**FAILS, "above": 50})
    assert found.verdict is ClaimVerdict.SUPPORTED
    assert found.parts[0].numbers == "test error: mean 74, 52 to 81 over 5 seeds, asked of each: > 50"
    assert (found.parts[0].kept, found.parts[0].late) == (20, 20)
    assert judged(chosen, {**FAILS, "above": 53}).verdict is ClaimVerdict.NOT_SUPPORTED
    assert judged(chosen, {**FAILS, "above": 53}, margin=2).verdict is ClaimVerdict.SUPPORTED
    assert judged(chosen, {**FAILS, "below": 82}).verdict is ClaimVerdict.SUPPORTED
    assert judged(chosen, {**FAILS, "below": 81}).verdict is ClaimVerdict.NOT_SUPPORTED
    assert judged(chosen, {**FAILS, "about": 66}, margin=14.5).verdict is ClaimVerdict.NOT_SUPPORTED
    assert judged(chosen, {**FAILS, "about": 66}, margin=15.5).verdict is ClaimVerdict.SUPPORTED


def test_every_epoch_is_within_bounds(chosen: Selection) -> None:
    def shares(epoch: int, seed: int, encoder: int) -> float:
        return 0.5 if epoch <= 10 or (epoch, seed, encoder) == (17, 4, 3) else 0.998

    store(chosen, "DTP", LOW, spectrum={"nonnegative": shares})
    check = {**SPECTRUM, "of": "nonnegative", "from_epoch": 11, "above": 1}
    found = judged(chosen, check, margin=0.005)
    assert [part.where for part in found.parts] == ["MNIST: DTP, encoder 2", "MNIST: DTP, last encoder"]
    assert [part.verdict for part in found.parts] == [ClaimVerdict.SUPPORTED, ClaimVerdict.NOT_SUPPORTED]
    assert found.parts[1].numbers == (
        "epochs 11 to 20: mean 0.988, 0.5 to 0.998 over 5 seeds and 10 epochs, asked of each: > 0.995"
    )
    earlier = judged(chosen, {**check, "from_epoch": 10}, margin=0.005)
    assert earlier.parts[0].verdict is ClaimVerdict.NOT_SUPPORTED
    last = {**SPECTRUM, "of": "nonnegative", "about": 0.99}
    assert judged(chosen, last, margin=0.01).verdict is ClaimVerdict.SUPPORTED
    assert judged(chosen, {**check, "from_epoch": 21}).verdict is ClaimVerdict.NO_DATA
    assert judged(chosen, {**check, "encoders": [7]}).verdict is ClaimVerdict.NO_DATA


def test_numbers_that_are_not_finite_do_not_hold(chosen: Selection) -> None:
    store(
        chosen, "DTP", LOW, spectrum={"trace": lambda e, s, l: float("nan") if (e, s) == (5, 2) else 1.0 + e}
    )
    check = {**SPECTRUM, "of": "trace", "from_epoch": 1, "above": 0}
    assert judged(chosen, check).verdict is ClaimVerdict.NOT_SUPPORTED
    assert "over 5 seeds and 20 epochs, 1 not finite, asked of each" in judged(chosen, check).parts[0].numbers
    assert "not finite" not in judged(chosen, {**check, "from_epoch": 6}).parts[0].numbers
    assert judged(chosen, {**check, "from_epoch": 6}).verdict is ClaimVerdict.SUPPORTED
    rising = {**check, "trend": True, "above": 0.9}
    assert judged(chosen, rising).verdict is ClaimVerdict.NOT_SUPPORTED
    assert judged(chosen, {**rising, "from_epoch": 6}).verdict is ClaimVerdict.SUPPORTED


def test_trends(chosen: Selection) -> None:
    rng = np.random.default_rng(1)
    noise = {(e, s, l): rng.normal(0, 0.5) for e in range(21) for s in range(6) for l in (2, 3)}
    store(chosen, "DTP", LOW, spectrum={"trace": lambda e, s, l: e + noise[e, s, l]})
    store(chosen, "FW-DTP", LOW, spectrum={"trace": lambda e, s, l: 5.0 - (l == 3) * e})
    rising = {**SPECTRUM, "of": "trace", "from_epoch": 1, "trend": True, "above": 1}
    assert judged(chosen, rising, margin=0.2).verdict is ClaimVerdict.SUPPORTED
    numbers = judged(chosen, rising, margin=0.2).parts[0].numbers
    curve = [e + noise[e, 3, 2] for e in range(1, 21)]
    assert stats.spearmanr(range(20), curve).statistic > 0.9
    assert numbers.startswith("rank correlation with the epoch, epochs 1 to 20: mean 0.9")
    assert judged(chosen, rising).verdict is ClaimVerdict.NOT_SUPPORTED
    falling = judged(chosen, {**rising, "rows": ["FW-DTP"]}, margin=0.2)
    assert {part.verdict for part in falling.parts} == {ClaimVerdict.NOT_SUPPORTED}
    assert "mean -1, -1 to -1" in falling.parts[1].numbers
    assert judged(chosen, {**rising, "from_epoch": 19}).verdict is ClaimVerdict.NO_DATA


def test_a_plan_that_does_not_measure(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN.replace("rows: [DTP, FW-DTP], ", "rows: [DTP], "))
    store(chosen, "FW-DTP", LOW)
    found = judged(chosen, {**SPECTRUM, "rows": ["FW-DTP"], "of": "trace", "above": 0})
    assert found.verdict is ClaimVerdict.NO_DATA
    assert found.parts[0].numbers == "the plan does not measure the Jacobians of FW-DTP on MNIST"


# ---- time and sensitivity


RATIO = {"kind": "time_ratio", "rows": ["DTP"], "against": ["FW-DTP"], "columns": ["mnist"]}


def took(seconds: float, std: float) -> Cost:
    """What an epoch costs, in four blocks of three iterations."""
    return Cost.model_construct(seconds_per_epoch=seconds, std=std, blocks=4, iterations=3)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Cost]]:
    """Costs by row and device, to be filled."""
    costs_of: dict[str, dict[str, Cost]] = {}

    def find(self: Evidence, row: str, column: str) -> dict[str, Cost]:
        if row not in costs_of:
            raise NoData(f"{row} was not timed", "time it")
        return costs_of[row]

    monkeypatch.setattr(Evidence, "timed", find)
    return costs_of


def test_time_ratios_by_device(chosen: Selection, timed: dict[str, dict[str, Cost]]) -> None:
    assert judged(chosen, {**RATIO, "above": 3.7}).parts[0].commands == ("time it", "time it")
    timed["DTP"] = {"a GPU": took(8, 0.3), "a CPU": took(6, 0.3), "only one": took(1, 0.1)}
    timed["FW-DTP"] = {"a CPU": took(2, 0.1), "a GPU": took(2, 0.1)}
    found = judged(chosen, {**RATIO, "above": 3.7})
    assert [(part.where, part.verdict) for part in found.parts] == [
        ("MNIST: DTP against FW-DTP on a GPU", ClaimVerdict.SUPPORTED),
        ("MNIST: DTP against FW-DTP on a CPU", ClaimVerdict.NOT_SUPPORTED),
    ]
    assert (
        found.parts[0].numbers
        == "8 / 2 s = 4.00 ± 0.25 (4 x 3 iterations; 4 x 3 iterations), asked, at either end of it: > 3.7"
    )
    assert judged(chosen, {**RATIO, "about": 3.5}, margin=0.76).verdict is ClaimVerdict.SUPPORTED
    assert judged(chosen, {**RATIO, "about": 3.5}, margin=0.74).verdict is ClaimVerdict.NOT_SUPPORTED
    timed["FW-DTP"] = {"another": took(1, 0.1)}
    assert judged(chosen, {**RATIO, "above": 3.7}).parts[0].numbers == "no device has timed both"


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        ({"above": 3.74}, ClaimVerdict.SUPPORTED),
        ({"above": 3.76}, ClaimVerdict.NOT_SUPPORTED),
        ({"below": 4.24}, ClaimVerdict.NOT_SUPPORTED),
        ({"below": 4.26}, ClaimVerdict.SUPPORTED),
    ],
)
def test_a_time_ratio_must_hold_with_its_spread(
    chosen: Selection, timed: dict[str, dict[str, Cost]], bound: dict[str, float], verdict: ClaimVerdict
) -> None:
    """4 ± 0.25: relative spreads of 0.3 / 8 and 0.1 / 2, added in squares."""
    timed |= {"DTP": {"a CPU": took(8, 0.3)}, "FW-DTP": {"a CPU": took(2, 0.1)}}
    assert judged(chosen, {**RATIO, **bound}).verdict is verdict


def test_sensitivity(chosen: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    accuracies = {
        "FW-DTP": pd.Series(50 - rng.exponential(2, 100)),
        "DTP": pd.Series(48 - rng.exponential(8, 100)),
        "BP": pd.Series([10.0] * 85 + [60.0] * 15),  # hardly ever trains: no spread, and yet sensitive
    }
    monkeypatch.setattr(Evidence, "accuracies", lambda self, row, column: accuracies[row])
    check = {"kind": "less_sensitive", "rows": ["FW-DTP"], "against": ["DTP", "BP"], "columns": ["mnist"]}
    found = judged(chosen, check)
    assert found.verdict is ClaimVerdict.SUPPORTED
    ours, theirs = (accuracies[row].quantile(0.95) - accuracies[row].mean() for row in ("FW-DTP", "DTP"))
    expected = f"{ours:.2f} against {theirs:.2f} points, 100 and 100 configurations"
    assert expected in found.parts[0].numbers
    turned = judged(chosen, {**check, "rows": ["DTP"], "against": ["FW-DTP"]})
    assert turned.verdict is ClaimVerdict.NOT_SUPPORTED
    accuracies["L-DRL"] = accuracies["FW-DTP"]
    same = judged(chosen, {**check, "against": ["L-DRL"]})
    assert same.verdict is ClaimVerdict.NOT_SUPPORTED
    accuracies["BP"] = pd.Series([10.0] * 99 + [60.0])  # one configuration, by luck, shows nothing
    assert judged(chosen, {**check, "against": ["BP"]}).verdict is ClaimVerdict.NOT_SUPPORTED
    accuracies["BP"] = accuracies["FW-DTP"] / 2
    more = float(ours) / 2  # points that FW-DTP falls shorter
    assert more > 0.5
    for margin, verdict in ((more - 0.5, ClaimVerdict.NOT_SUPPORTED), (more + 2, ClaimVerdict.SUPPORTED)):
        assert judged(chosen, {**check, "against": ["BP"]}, margin=margin).verdict is verdict


@pytest.mark.parametrize(
    ("shape", "other"),
    [
        (stats.norm(), stats.norm()),
        (stats.t(3), stats.uniform()),
        (stats.t(3), stats.norm()),
        (stats.expon(), stats.beta(5, 1)),
    ],
    ids=[
        "alike",
        "heavy tails against none",
        "heavy tails against light ones",
        "skewed against the other way",
    ],
)
def test_equal_sensitivities_are_seldom_told_apart(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch, shape: Any, other: Any
) -> None:
    """One study in twenty, give or take chance, however unlike the accuracies are distributed."""
    monkeypatch.setattr("benchmark.common.statistics.RESAMPLES", 399)
    check = {"kind": "less_sensitive", "rows": ["FW-DTP"], "against": ["DTP"], "columns": ["mnist"]}
    rng = np.random.default_rng(7)
    shapes = {"FW-DTP": shape, "DTP": other}
    scale = {
        row: 3 / (stats_of.ppf(0.95) - stats_of.mean()) for row, stats_of in shapes.items()
    }  # equal shortfalls
    told_apart = 0
    for _ in range(100):
        drawn = {
            row: pd.Series(50 + scale[row] * kind.rvs(100, random_state=rng)) for row, kind in shapes.items()
        }
        monkeypatch.setattr(Evidence, "accuracies", lambda self, row, column, drawn=drawn: drawn[row])
        told_apart += judged(chosen, check).verdict is ClaimVerdict.SUPPORTED
    assert told_apart <= 10


def test_accuracies_come_from_the_sensitivity_study(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = {"kind": "less_sensitive", "rows": ["FW-DTP"], "against": ["DTP"], "columns": ["mnist"]}
    missing = judged(chosen, check).parts[0]
    assert missing.verdict is ClaimVerdict.NO_DATA
    assert missing.numbers.startswith("0 of 100 configurations of FW-DTP on MNIST are stored; 0 of 100")
    assert "--method FW-DTP --dataset mnist" in missing.commands[0]
    made: dict[str, optuna.Study] = {}
    rng = np.random.default_rng(4)
    for row, trials, scale in (("FW-DTP", 100, 2), ("TP", 100, 8), ("DTP", 99, 8)):
        (design,) = designs(chosen.plan, [row], "mnist")
        made[design.name] = open_study(design, optuna.storages.InMemoryStorage(), 25)
        for index in range(trials):
            trial = create_trial(
                params=design.configuration(index),
                distributions=design.distributions,
                user_attrs={"index": index, "diverged": False},
                value=50 - rng.exponential(scale),
            )
            made[design.name].add_trial(trial)
    monkeypatch.setattr(optuna_storage, "read_studies", lambda url, names: [made[name] for name in names])
    assert judged(chosen, check).parts[0].numbers == "99 of 100 configurations of DTP on MNIST are stored"
    assert judged(chosen, {**check, "against": ["TP"]}).verdict is ClaimVerdict.SUPPORTED
    assert "the plan has no L-DRL" in judged(chosen, {**check, "against": ["L-DRL"]}).parts[0].numbers


def test_seconds_come_from_table_3(tmp_path: Path) -> None:
    chosen = Selection("table2", tmp_path / "results")
    check = {**RATIO, "columns": ["cifar-10"], "above": 3.7}
    missing = judged(chosen, check).parts[0]
    assert missing.numbers == "DTP on CIFAR-10 is not timed; FW-DTP on CIFAR-10 is not timed"
    (command,) = set(missing.commands)
    assert command.startswith("python -m benchmark.timing --table3")
    seconds = {"DTP": 8.0, "FW-DTP": 2.0}
    measured = [
        Cost.of(point.run, "replica axis", samples=50_000, device=CPU, began="today").model_copy(
            update={
                "seconds_per_epoch": seconds.get(point.run.row, 9.0) * len(point.run.seeds),
                "std": 0.01,
                "blocks": 10,
                "iterations": 2,
            }
        )
        for point in timing_points.table3_points(chosen.plan)
    ]
    file = costs.file_of(chosen.root, measured[0].device)
    file.parent.mkdir(parents=True)
    costs.write(measured, file)
    (part,) = judged(chosen, check).parts
    assert part.where == f"CIFAR-10: DTP against FW-DTP on {measured[0].device}"
    assert part.numbers.startswith("8 / 2 s = 4.00 ± 0.02 (10 x 2 iterations; 10 x 2 iterations), asked")
    assert judged(chosen, {**check, "columns": ["mnist"]}).verdict is ClaimVerdict.NO_DATA


# ---- the ledger


def ledger(chosen: Selection, check: Mapping[str, Any] = BEATS) -> Ledger:
    judged(chosen, check)
    return verify(chosen.plan, chosen.store, PAPER, chosen.root.parent / "claims.yaml")


def written(found: Ledger, folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in report.write(found, folder / "tables")}


def shown(found: Ledger) -> str:
    console = Console(width=2000, record=True, file=io.StringIO())
    report.show(found, console)
    return console.export_text()


def test_failure_is_for_what_is_not_supported(chosen: Selection) -> None:
    assert not ledger(chosen).failed  # no data
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    assert not ledger(chosen).failed
    assert ledger(chosen, {**BEATS, "rows": ["DTP"], "against": ["FW-DTP"]}).failed


def test_files_and_terminal(chosen: Selection, tmp_path: Path) -> None:
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    found = ledger(chosen, {**BEATS, "columns": ["mnist", "fashion-mnist"]})
    files = written(found, tmp_path)
    assert list(files) == ["claims-made up.md", "claims-made up.csv"]
    assert files == written(found, tmp_path)
    markdown, terminal = files["claims-made up.md"], shown(found)
    for text in (markdown, terminal):
        assert "2.75 against 3.18 %, difference -0.43" in text
        assert "1 INCOMPLETE" in text
        assert "--method FW-DTP --dataset fashion-mnist" in text
    assert markdown.startswith(
        "# Claims of the paper: 1 INCOMPLETE\n\nMade up: 20 epochs, seeds 1, 2, 3, 4, 5\n"
    )
    assert "| it | **INCOMPLETE** | SUPPORTED on 1 of 2, NO DATA on 1 of 2 |" in markdown
    assert "> B\n" in markdown
    assert "no data: F-MNIST: FW-DTP against DTP" in terminal
    frame = pd.read_csv(tmp_path / "tables" / "claims-made up.csv", keep_default_na=False)
    assert frame["verdict"].tolist() == ["SUPPORTED", "NO DATA"]
    assert frame["claim_verdict"].tolist() == ["INCOMPLETE"] * 2
    assert frame[["kept", "late"]].to_numpy().tolist() == [["1", "20"], ["", ""]]
    assert "| MNIST: FW-DTP against DTP | SUPPORTED (1 of 20 epochs) | 2.75" in markdown
    assert "SUPPORTED (1 of 20 epochs). 2.75" in terminal.replace("\n", " ")


def test_a_plan_of_few_epochs_has_few_late_ones(tmp_path: Path) -> None:
    chosen = select(tmp_path, epochs=3)
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    (part,) = judged(chosen, BEATS).parts
    assert (part.kept, part.late) == (1, 3)


@pytest.mark.parametrize(
    ("text", "options"),
    [(PLAN.replace("comparable: true", "comparable: false"), {}), (PLAN, {"epochs": 10})],
    ids=["not comparable", "other epochs"],
)
def test_another_protocol_says_nothing_of_the_paper(
    tmp_path: Path, text: str, options: dict[str, Any]
) -> None:
    chosen = select(tmp_path, text, **options)
    store(chosen, "FW-DTP", HIGH)
    store(chosen, "DTP", LOW)
    found = ledger(chosen)
    assert not found.failed
    assert found.judgements[0].verdict is ClaimVerdict.NOT_SUPPORTED
    for shows in (*written(found, tmp_path).values(), shown(found)):
        verdicts = shows.replace(report.note(found), "")
        assert "not comparable: NOT SUPPORTED" in verdicts
        assert verdicts.count("SUPPORTED") == verdicts.count("not comparable: NOT SUPPORTED")


def test_a_plan_that_is_not_comparable_is_checked_on_its_own_data_sets(tmp_path: Path) -> None:
    chosen = select(tmp_path, PLAN.replace("comparable: true", "comparable: false"))
    found = judged(chosen, {**BEATS, "columns": ["cifar-10"]})
    assert [part.where.split(":")[0] for part in found.parts] == ["MNIST", "F-MNIST"]


def test_a_plan_held_against_the_paper_is_checked_on_the_paper_s_data_sets_alone(chosen: Selection) -> None:
    store(chosen, "FW-DTP", LOW)
    store(chosen, "DTP", HIGH)
    (part,) = judged(chosen, {**BEATS, "columns": ["cifar-10"]}).parts
    assert (part.verdict, part.numbers) == (
        ClaimVerdict.NO_DATA,
        "the plan has no FW-DTP on CIFAR-10; the plan has no DTP on CIFAR-10",
    )


def test_damage_and_mixed_data_are_refused(chosen: Selection) -> None:
    store(chosen, "FW-DTP", LOW)
    folder = store(chosen, "DTP", HIGH, data="e" * 64)
    with pytest.raises(UserError, match="mnist: stored runs were trained on different images"):
        judged(chosen, BEATS)
    (folder / "epochs.csv").write_text("")
    with pytest.raises(UserError, match="changed since the run was stored"):
        judged(chosen, BEATS)


# ---- claims.yaml


def test_the_shipped_claims() -> None:
    known = list(PAPER.cells)
    claims = load_claims(known, list(load_datasets()))
    quotes = " ".join(claim.quote for claim in claims.values())
    for said in ("consistently achieves higher test performance", "≈ 3.0 times", "> 3.7 times", "53%"):
        assert said in quotes
    assert {claim.check.kind for claim in claims.values()} == {
        *("lower_error", "close_error", "measured", "time_ratio", "less_sensitive")
    }
    for name, claim in claims.items():
        assert claim.reason.strip(), name


@pytest.mark.parametrize("plan", ["table2", "quick"])
def test_the_shipped_claims_on_shipped_plans(plan: str, tmp_path: Path) -> None:
    chosen = Selection(plan, tmp_path)
    found = verify(chosen.plan, chosen.store, PAPER)
    assert {judgement.verdict for judgement in found.judgements} == {ClaimVerdict.NO_DATA}
    gaps = {part.numbers for judgement in found.judgements for part in judgement.parts}
    assert not [gap for gap in gaps if "no margin" in gap or "the plan has no" in gap]


def test_a_plan_without_a_cell_of_figure_3_has_no_data(tmp_path: Path) -> None:
    rows = {"DTP": {"hyperparameters": {"cifar-10": None}}}
    base = {"base": str(CONFIGS / "table2.yaml"), "title": "Without DTP on CIFAR-10", "rows": rows}
    (tmp_path / "without.yaml").write_text(yaml.safe_dump(base))
    chosen = Selection(str(tmp_path / "without.yaml"), tmp_path / "results")
    found = {judgement.name: judgement for judgement in verify(chosen.plan, chosen.store, PAPER).judgements}
    assert {judgement.verdict for judgement in found.values()} == {ClaimVerdict.NO_DATA}
    assert "the plan has no DTP on CIFAR-10" in found["less-sensitive"].parts[0].numbers
    assert "figure3" not in contents.available(chosen)


def test_a_plan_that_trains_otherwise_is_asked_about_the_claimed_data_sets(tmp_path: Path) -> None:
    base = {"base": str(CONFIGS / "table2.yaml"), "title": "Shorter", "protocol": {"epochs": 20}}
    (tmp_path / "shorter.yaml").write_text(yaml.safe_dump(base))
    there, paper = (Selection(plan, tmp_path) for plan in (str(tmp_path / "shorter.yaml"), "table2"))
    assert not there.plan.config.comparable
    ours, theirs = (verify(chosen.plan, chosen.store, PAPER).judgements for chosen in (there, paper))
    assert [[part.where for part in j.parts] for j in ours] == [
        [part.where for part in j.parts] for j in theirs
    ]


def test_the_papers_own_numbers_would_pass() -> None:
    """No claim contradicts Table 2 by mistake: means alone, margins of the plan."""
    plan = Selection("table2", RESULTS).plan
    contradicted = []
    for name, claim in load_claims(list(PAPER.cells), list(load_datasets())).items():
        check = claim.check
        if check.kind not in ("lower_error", "close_error"):
            continue
        holds = []
        for column in check.columns:
            margin = plan.config.margins[column] if claim.margin == "plan" else claim.margin
            for row in check.rows:
                for other in check.against:
                    d = PAPER.cells[row][column].mean - PAPER.cells[other][column].mean
                    holds.append(
                        d < margin if check.kind == "lower_error" else abs(d) < check.within + margin
                    )
        if not (all(holds) if claim.need == "all" else any(holds)):
            contradicted.append(name)
    assert contradicted == ["fa-outperforms-bp"]


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (
            {"check": {**BEATS, "kind": "beats"}},
            ["it.check", "'beats'", "lower_error"],
        ),
        ({"check": {**BEATS, "rows": ["FWDTP"]}}, ["it.check.rows: unknown 'FWDTP', allowed: BP, TP, DTP,"]),
        ({"check": {**BEATS, "against": ["X"]}}, ["it.check.against: unknown 'X', allowed: BP,", "L-DRL"]),
        ({"check": {**BEATS, "columns": ["mnits"]}}, ["it.check.columns: unknown 'mnits', allowed: mnist,"]),
        ({"check": {**BEATS, "columns": []}}, ["columns: [] found", "at least 1"]),
        ({"check": {**BEATS, "columns": ["mnist", "mnist"]}}, ["columns: 'mnist' stands twice"]),
        ({"check": {**FAILS, "of": "trace", "above": 1, "encoders": [2, 2]}}, ["encoders: 2 stands twice"]),
        (
            {"check": {**BEATS, "colour": 1}},
            ["colour: unknown key, allowed: rows, against, columns, kind"],
        ),
        ({"check": {**FAILS, "above": 1, "below": 2}}, ["one of 'above', 'below', 'about' is required"]),
        ({"check": {**RATIO}}, ["it.check", "one of 'above', 'below', 'about' is required"]),
        ({"check": {**FAILS, "above": 1, "encoders": [2]}}, ["'encoders' are required for a measurement"]),
        (
            {"check": {**SPECTRUM, "of": "trace", "above": 0, "trend": True}},
            ["'trend' requires 'from_epoch'"],
        ),
        (
            {"check": {**SPECTRUM, "of": "rank", "above": 0}},
            ["of: 'rank' found", "'trace'"],
        ),
        ({"check": {**FAILS, "above": 1}, "margin": "plan"}, ["margin: 'plan' is for test errors"]),
        ({"margin": -1}, ["it.margin", "-1 found"]),
        ({"margin": None}, ["it.margin", "None found"]),
        (
            {"margin": "plann"},
            ["it.margin", "'plann' found", "'plan'"],
        ),
        (
            {"check": {**BEATS, "against": ["DTP", "FW-DTP"]}},
            ["against: 'FW-DTP' found, which is among 'rows'"],
        ),
        ({"check": {"rows": ["BP"]}}, ["it.check", "kind"]),
        ({"need": "most"}, ["it.need", "'most' found", "'all' or 'any'"]),
        ({"quotes": "x"}, ["it.quotes: unknown key"]),
    ],
)
def test_bad_claims(chosen: Selection, delta: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(UserError) as error:
        judged(chosen, **{"check": BEATS, **delta})
    line = str(error.value)
    assert line.startswith(str(chosen.root.parent / "claims.yaml"))
    assert len(line.splitlines()) == 1
    for words in expected:
        assert words in line


def test_claims_that_are_no_mapping(chosen: Selection) -> None:
    file = chosen.root.parent / "claims.yaml"
    for text, words in (("[]", "a mapping expected"), ("it: 5", "it"), ("it: {}\nit: {}", "stands twice")):
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            verify(chosen.plan, chosen.store, PAPER, file)
    with pytest.raises(UserError, match="no such file"):
        verify(
            chosen.plan, chosen.store, PaperTable(n=5, spread="-", unit="-", cells={}), CONFIGS / "none.yaml"
        )


def test_judging_needs_no_report() -> None:
    """Data flow from the store to claims and on to reports, never back."""
    seen = "[name for name in sys.modules if 'benchmark.report' in name]"
    code = f"import benchmark.comparison.claims, sys; print({seen})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_what_no_command_gets_is_said_why(chosen: Selection) -> None:
    store(chosen, "FW-DTP", LOW)
    lacking = {**BEATS, "columns": ["mnist"], "against": ["L-DRL"]}
    assert "MNIST: FW-DTP against L-DRL (the plan has no L-DRL on MNIST)" in shown(ledger(chosen, lacking))
    assert "no data: MNIST: FW-DTP against DTP " in shown(ledger(chosen, {**lacking, "against": ["DTP"]}))
