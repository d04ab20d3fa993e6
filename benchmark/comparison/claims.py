"""The paper's claims, judged on stored results.

A claim has parts: data sets, pairs of rows, encoders. A part about a difference of test errors is a one-sided
test over the seeds (paired: same order of samples), one about sensitivity a bootstrap
over configurations. The p-values of a claim's parts are corrected (Holm), claim by claim, and SUPPORTED
means at most `ALPHA`, also where all parts must hold, so that the parts can be read by themselves. All
other parts hold or do not, with no allowance for chance but the claim's margin; of a ratio of times, which
drift, both ends of value ± spread must hold.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from benchmark.common.statistics import ALPHA, Difference, holm, p_less_sensitive, shortfall
from benchmark.comparison.evidence import Evidence, NoData
from benchmark.config import (
    CONFIGS,
    Claim,
    CloseError,
    LessSensitive,
    LowerError,
    Measured,
    PaperTable,
    TimeRatio,
    load_claims,
)
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan

Found = TypeVar("Found")


class ClaimVerdict(StrEnum):
    """What the store says of a claim, or of a part of it."""

    SUPPORTED = "SUPPORTED"
    NOT_SUPPORTED = "NOT SUPPORTED"
    """Not shown; the contrary need not be shown either."""
    INCOMPLETE = "INCOMPLETE"
    """Of a claim: some of its parts are without data, and the others do not decide it."""
    NO_DATA = "NO DATA"


@dataclass(frozen=True)
class Finding:
    """A part of a claim before correction: a test's p-value, or whether it holds, or neither without data."""

    where: str
    numbers: str
    """Without data: what is missing."""
    p: float | None = None
    holds: bool | None = None
    commands: tuple[str, ...] = ()
    """What gets the missing data."""


@dataclass(frozen=True)
class Part:
    """A part of a claim, judged."""

    where: str
    numbers: str
    verdict: ClaimVerdict
    commands: tuple[str, ...]
    kept: int | None = None
    """Where it is about test errors: after how many of the last epochs the verdict would have been the same,
    had training ended there."""
    late: int | None = None
    """Of how many."""


@dataclass(frozen=True)
class Judgement:
    """A claim, judged."""

    name: str
    claim: Claim
    parts: list[Part]

    @property
    def verdict(self) -> ClaimVerdict:
        """Where all parts must hold, one that does not decides; where one must, one that does."""
        found = {part.verdict for part in self.parts}
        decides, otherwise = ClaimVerdict.NOT_SUPPORTED, ClaimVerdict.SUPPORTED
        if self.claim.need == "any":
            decides, otherwise = otherwise, decides
        if decides in found:
            return decides
        if ClaimVerdict.NO_DATA in found:
            return ClaimVerdict.NO_DATA if len(found) == 1 else ClaimVerdict.INCOMPLETE
        return otherwise


@dataclass(frozen=True)
class Ledger:
    """All claims, judged."""

    plan: Plan
    judgements: list[Judgement]
    warning: str | None
    """Why no verdict says anything of the paper, if so."""

    def shown(self, verdict: ClaimVerdict) -> str:
        """A verdict as it may be printed."""
        return f"not comparable: {verdict}" if self.warning else str(verdict)

    def judged(self, part: Part) -> str:
        """A part's verdict, and at how many of the last epochs it holds: `SUPPORTED (18 of 20 epochs)`."""
        shown = self.shown(part.verdict)
        return shown if part.kept is None else f"{shown} ({part.kept} of {part.late} epochs)"

    def summary(self, judgement: Judgement) -> str:
        """`SUPPORTED on 2 of 4, NO DATA on 2 of 4`."""
        counts = Counter(part.verdict for part in judgement.parts)
        total = len(judgement.parts)
        return ", ".join(f"{self.shown(v)} on {counts[v]} of {total}" for v in ClaimVerdict if counts[v])

    @property
    def commands(self) -> list[str]:
        """What gets all missing data."""
        return list(dict.fromkeys(c for j in self.judgements for part in j.parts for c in part.commands))

    @property
    def failed(self) -> bool:
        """Whether a claim of the paper is not supported."""
        return not self.warning and any(j.verdict is ClaimVerdict.NOT_SUPPORTED for j in self.judgements)

    def frame(self) -> pd.DataFrame:
        """One row a part."""
        return pd.DataFrame(
            [
                {
                    "claim": judgement.name,
                    "section": judgement.claim.section,
                    "claim_verdict": self.shown(judgement.verdict),
                    "part": part.where,
                    "verdict": self.shown(part.verdict),
                    "kept": part.kept,
                    "late": part.late,
                    "numbers": part.numbers,
                    "margin": judgement.claim.margin,
                    "quote": judgement.claim.quote,
                }
                for judgement in self.judgements
                for part in judgement.parts
            ]
        ).astype({"kept": "Int64", "late": "Int64"})


def verify(plan: Plan, store: Store, paper: PaperTable, file: Path = CONFIGS / "claims.yaml") -> Ledger:
    """Judge every claim of the file; `UserError` for bad claims, damaged runs and mixed data."""
    rows = list(dict.fromkeys([*plan.config.rows, *paper.cells]))
    claims = load_claims(rows, list(plan.datasets), file)
    evidence = Evidence(plan, store, paper)
    return Ledger(plan, [judge(name, claim, evidence) for name, claim in claims.items()], evidence.warning)


def judge(name: str, claim: Claim, evidence: Evidence) -> Judgement:
    """The verdict on every part, and at how many of the last epochs it is the same."""
    check = claim.check
    of_one_row = isinstance(check, Measured) and check.of == "test_error"
    parts = _parts(claim, evidence)
    if of_one_row or isinstance(check, LowerError | CloseError):
        late = [parts, *(_parts(claim, evidence.earlier(back)) for back in range(1, evidence.late))]
        parts = [_with_late(*versions) for versions in zip(*late, strict=True)]
    return Judgement(name, claim, parts)


def _with_late(*versions: Part) -> Part:
    """The first, of the last epoch, with how many of all are judged as it is."""
    part, late = versions[0], len(versions)
    if part.verdict is ClaimVerdict.NO_DATA:
        return part
    return replace(part, kept=sum(other.verdict is part.verdict for other in versions), late=late)


def _parts(claim: Claim, evidence: Evidence) -> list[Part]:
    """Find, correct, and decide."""
    findings = list(_findings(claim, evidence))
    tested = [finding.p for finding in findings if finding.p is not None]
    corrected = iter(holm(tested))
    parts = []
    for finding in findings:
        holds, numbers = finding.holds, finding.numbers
        if finding.p is not None:
            p = next(corrected)
            holds = p <= ALPHA
            numbers += f", p = {finding.p:.2g}" + (f", corrected {p:.2g}" if len(tested) > 1 else "")
        verdict = {
            None: ClaimVerdict.NO_DATA,
            True: ClaimVerdict.SUPPORTED,
            False: ClaimVerdict.NOT_SUPPORTED,
        }[holds]
        parts.append(Part(finding.where, numbers, verdict, finding.commands))
    return parts


def _findings(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Those of every data set, row, and other row or encoder."""
    check = claim.check
    for column in evidence.columns(check.columns):
        for row in check.rows:
            where = f"{evidence.title(column)}: {row}"
            if isinstance(check, Measured):
                encoders: list[int | Literal["last"]] | list[None] = check.encoders or [None]
                for encoder in encoders:
                    named = "last encoder" if encoder == "last" else f"encoder {encoder}"
                    at = where if encoder is None else f"{where}, {named}"
                    yield from _tried(at, claim, evidence, column, partial(_measured, check, row, encoder))
            else:
                for other in check.against:
                    pair = partial(_PAIRS[check.kind], check, row, other)
                    yield from _tried(f"{where} against {other}", claim, evidence, column, pair)


def _tried(
    where: str, claim: Claim, evidence: Evidence, column: str, find: Callable[..., list[Finding]]
) -> list[Finding]:
    """What `find` finds, or what it lacks."""
    try:
        margin = evidence.margin(column) if claim.margin == "plan" else claim.margin
        return [replace(found, where=where + found.where) for found in find(evidence, column, margin)]
    except NoData as missing:
        return [Finding(where, missing.what, commands=missing.commands)]


def _both(get: Callable[[str, str], Found], row: str, other: str, column: str) -> tuple[Found, Found]:
    """What there is of both rows, or all that is missing."""
    found: list[Found] = []
    missing: list[NoData] = []
    for name in (row, other):
        try:
            found.append(get(name, column))
        except NoData as gap:
            missing.append(gap)
    if missing:
        commands = [command for gap in missing for command in gap.commands]
        raise NoData("; ".join(dict.fromkeys(gap.what for gap in missing)), *commands)
    return found[0], found[1]


def _lower_error(
    check: LowerError, row: str, other: str, evidence: Evidence, column: str, margin: float
) -> list[Finding]:
    difference, numbers = _difference(evidence, row, other, column)
    asked = f"{numbers}, asked: < {margin:g}"
    return [_tested(difference, asked, difference.p_above(-margin, sign=-1))]


def _close_error(
    check: CloseError, row: str, other: str, evidence: Evidence, column: str, margin: float
) -> list[Finding]:
    difference, numbers = _difference(evidence, row, other, column)
    reach = check.within + margin
    return [_tested(difference, f"{numbers}, asked: within {reach:g}", difference.p_equivalence(reach))]


def _tested(difference: Difference, numbers: str, p: float) -> Finding:
    """What does not vary shows nothing, however large: a t test would take it for certain."""
    return Finding("", numbers, p=p if difference.error else 1.0)


def _difference(evidence: Evidence, row: str, other: str, column: str) -> tuple[Difference, str]:
    """Error of `row` minus that of `other`, seed by seed, in numbers and words."""
    ours, theirs = map(np.asarray, _both(evidence.errors, row, other, column))
    if len(ours) < 2:
        raise NoData("no test: 1 seed stored, 2 needed")
    if diverged := [lost for name in (row, other) if (lost := evidence.diverged(name, column))]:
        raise NoData(f"no test: {', '.join(diverged)}")
    found = Difference.paired(list(ours - theirs))
    numbers = f"{ours.mean():.2f} against {theirs.mean():.2f} %, difference"
    numbers += f" {found} over {len(ours)} seeds" if found.error else f" {found.text} on all seeds: no test"
    return found, numbers + evidence.remarks(row, column) + evidence.remarks(other, column)


def _time_ratio(
    check: TimeRatio, row: str, other: str, evidence: Evidence, column: str, margin: float
) -> list[Finding]:
    ours, theirs = _both(evidence.timed, row, other, column)
    devices = [device for device in ours if device in theirs]
    if not devices:
        raise NoData("no device has timed both")
    low, high = check.interval(margin)
    findings = []
    for device in devices:
        first, second = ours[device].time, theirs[device].time
        assert first is not None
        assert second is not None
        ratio, blocks = first.over(second), f"{ours[device].how}; {theirs[device].how}"
        numbers = (
            f"{first.value:.3g} / {second.value:.3g} s = {ratio} ({blocks}), asked, at either end of it: "
            f"{_asked(low, high)}"
        )
        holds = low < ratio.value - ratio.std and ratio.value + ratio.std < high
        findings.append(Finding(f" on {device}", numbers, holds=holds))
    return findings


def _less_sensitive(
    check: LessSensitive, row: str, other: str, evidence: Evidence, column: str, margin: float
) -> list[Finding]:
    ours, theirs = _both(evidence.accuracies, row, other, column)
    numbers = (
        f"mean shortfall from the method's best twentieth {shortfall(ours.to_numpy()):.2f} against "
        f"{shortfall(theirs.to_numpy()):.2f} points, {len(ours)} and {len(theirs)} configurations, "
        f"asked: less than {margin:g} more"
    )
    return [Finding("", numbers, p=p_less_sensitive(ours.to_numpy(), theirs.to_numpy(), margin))]


_PAIRS: dict[str, Callable[..., list[Finding]]] = {
    "lower_error": _lower_error,
    "close_error": _close_error,
    "time_ratio": _time_ratio,
    "less_sensitive": _less_sensitive,
}


def _measured(
    check: Measured,
    row: str,
    encoder: int | Literal["last"] | None,
    evidence: Evidence,
    column: str,
    margin: float,
) -> list[Finding]:
    """Of every seed, at every epoch asked for: `values`, epochs x seeds."""
    if encoder is None:
        values, what = pd.DataFrame([evidence.errors(row, column)]), "test error"
    else:
        table = evidence.jacobians(row, column)
        table = table[table["encoder"] == (table["encoder"].max() if encoder == "last" else encoder)]
        last = table["epoch"].max()
        first = last if check.from_epoch is None else check.from_epoch
        values = table[table["epoch"] >= first].pivot(index="epoch", columns="seed", values=check.of)
        if len(values) < (3 if check.trend else 1):
            raise NoData(f"too few epochs from {first} on, or no encoder {encoder}, among what was measured")
        what = f"epochs {first} to {last}" if first < last else f"epoch {last}"
        if check.trend:
            trend = values.rank().corrwith(pd.Series(values.index, values.index).rank())
            trend = trend.where(values.notna().all())  # pandas leaves out what is not finite
            values, what = trend.to_frame().T, f"rank correlation with the epoch, {what}"
    low, high = check.interval(margin)
    broken = int(np.sum(~np.isfinite(values.to_numpy())))
    remarks = (f", {broken} not finite" if broken else "") + evidence.remarks(row, column)
    epochs = f" and {len(values)} epochs" if len(values) > 1 else ""
    numbers = (
        f"{what}: mean {np.mean(values):.4g}, {np.min(values):.4g} to {np.max(values):.4g} over "
        f"{values.shape[1]} seeds{epochs}{remarks}, asked of each: {_asked(low, high)}"
    )
    return [Finding("", numbers, holds=bool(np.all((values > low) & (values < high))))]


def _asked(low: float, high: float) -> str:
    """An interval in words."""
    if math.isinf(high):
        return f"> {low:g}"
    return f"< {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"
