"""Our numbers against the paper's: difference, equivalence within a margin, and what may be said of them.

The paper prints means, standard deviations and the number of seeds, so tests against it are Welch's, from
summary statistics; equivalence is shown by two one-sided tests (TOST, Schuirmann 1987). The paper does not
say whether its ± divides by n or n - 1: n - 1 is assumed. Where deviations are zero, results are the limits
as they tend to zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALPHA = 0.05
"""Level of every family of tests; intervals have 1 - ALPHA."""
RESAMPLES = 9999
"""Of a bootstrap."""
_ROUNDING = 1e-6
"""Points: differences that vary by less than this vary by rounding."""

Name = TypeVar("Name", bound=Hashable)


class Verdict(StrEnum):
    """What our runs say about a number of the paper. That no difference was found is no reproduction."""

    EQUIVALENT = "EQUIVALENT"
    """The difference lies within the margin."""
    DIFFERENT = "DIFFERENT"
    """There is a difference."""
    DIFFERENT_WITHIN_MARGIN = "DIFFERENT WITHIN MARGIN"
    """There is one, and it lies within the margin."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """Neither can be said."""
    INCOMPLETE = "INCOMPLETE"
    """Seeds are missing or diverged."""


@dataclass(frozen=True)
class Estimate:
    """A measured number, and by how much single measurements spread about it: no standard error.

    `value` and `std`, a sample standard deviation (n - 1), have the same unit.
    """

    value: float
    std: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.std:.2f}"

    def over(self, other: Estimate) -> Estimate:
        """The ratio of two numbers above zero; spreads propagated to first order, as independent ones."""
        ratio = self.value / other.value
        return Estimate(ratio, ratio * math.hypot(self.std / self.value, other.std / other.value))


@dataclass(frozen=True)
class Sample:
    """What is known of `n` >= 2 values."""

    mean: float
    std: float
    """Sample standard deviation (n - 1)."""
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """The sample of two or more finite values."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.std / math.sqrt(self.n)


@dataclass(frozen=True)
class Difference:
    """The difference of two means and its t distribution."""

    difference: float
    error: float
    """Its standard error."""
    df: float
    """Degrees of freedom."""

    @classmethod
    def welch(cls, ours: Sample, paper: Sample) -> Difference:
        """Our mean minus the paper's, deviations unequal (Welch 1947)."""
        error = math.hypot(ours.error, paper.error)
        share = (ours.error / error) ** 2 if error else 0.5
        df = 1 / (share**2 / (ours.n - 1) + (1 - share) ** 2 / (paper.n - 1))
        return cls(ours.mean - paper.mean, error, df)

    @classmethod
    def paired(cls, differences: Sequence[float]) -> Difference:
        """The mean of two or more differences, one a pair.

        Its `error` is 0 where they vary by rounding alone: nothing is to be tested then.
        """
        sample = Sample.of(differences)
        return cls(sample.mean, sample.error if np.ptp(differences) > _ROUNDING else 0.0, sample.n - 1)

    @property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of level 1 - ALPHA."""
        half = float(special.stdtrit(self.df, 1 - ALPHA / 2)) * self.error
        return self.difference - half, self.difference + half

    @property
    def text(self) -> str:
        """`+0.02`."""
        return f"{self.difference:+z.2f}"

    @property
    def reach(self) -> str:
        """`[-0.18, +0.22]`: the interval."""
        low, high = self.interval
        return f"[{low:+z.2f}, {high:+z.2f}]"

    def __str__(self) -> str:
        """`+0.02 [-0.18, +0.22]`."""
        return f"{self.text} {self.reach}"

    @property
    def p_difference(self) -> float:
        """Of the two-sided test that there is no difference."""
        return 2 * self.p_above(0.0, sign=math.copysign(1.0, self.difference))

    def p_equivalence(self, margin: float) -> float:
        """Of the TOST that the difference is as large as `margin`, in either direction, or larger."""
        return max(self.p_above(-margin), self.p_above(-margin, sign=-1.0))

    def p_above(self, bound: float, sign: float = 1.0) -> float:
        """Of the one-sided test that sign x difference <= bound."""
        beyond = sign * self.difference - bound
        if not self.error:
            return 0.5 if beyond == 0 else float(beyond < 0)
        return float(special.stdtr(self.df, -beyond / self.error))


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """Correct p-values for multiple tests (Holm 1979), in the order given.

    `family` is the number of tests in all. Those without a p-value yet count as if their p were 1.
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.sort(p) * ((family or len(order)) - np.arange(len(order))))
    return [float(value) for value in np.minimum(corrected, 1)]


@dataclass(frozen=True)
class Comparison:
    """Our sample beside the paper's, as one cell of a table."""

    ours: Sample
    paper: Sample
    margin: float
    corrected_p_difference: float
    """p of the test of difference, corrected (Holm) over the table."""
    corrected_p_equivalence: float
    """p of the test of equivalence, corrected (Holm) over the table."""

    @cached_property
    def _welch(self) -> Difference:
        return Difference.welch(self.ours, self.paper)

    def __str__(self) -> str:
        """`+0.02 [-0.18, +0.22]`: our mean minus the paper's, and its `interval`."""
        return str(self._welch)

    @property
    def interval(self) -> tuple[float, float]:
        """Welch's, of level 1 - ALPHA; of this number alone, not corrected."""
        return self._welch.interval

    @property
    def p_difference(self) -> float:
        """See `Difference.p_difference`; of this number alone, not corrected."""
        return self._welch.p_difference

    @property
    def p_equivalence(self) -> float:
        """See `Difference.p_equivalence`; of this number alone, not corrected."""
        return self._welch.p_equivalence(self.margin)

    @property
    def verdict(self) -> Verdict:
        """The verdict by the corrected p-values at level ALPHA."""
        different = self.corrected_p_difference <= ALPHA
        equivalent = self.corrected_p_equivalence <= ALPHA
        if different:
            return Verdict.DIFFERENT_WITHIN_MARGIN if equivalent else Verdict.DIFFERENT
        return Verdict.EQUIVALENT if equivalent else Verdict.INCONCLUSIVE


def compare(table: Mapping[Name, tuple[Sample, Sample, float]], family: int) -> dict[Name, Comparison]:
    """Compare the (ours, the paper's, margin) of a table of `family` cells.

    The tests of difference are one family and the tests of equivalence another, each corrected (Holm) over
    all `family` cells. Cells without results count, so a verdict does not change when they come in.
    """
    welch = {name: Difference.welch(ours, paper) for name, (ours, paper, _) in table.items()}
    differences = holm([welch[name].p_difference for name in table], family)
    equivalences = holm([welch[name].p_equivalence(margin) for name, (_, _, margin) in table.items()], family)
    return {
        name: Comparison(ours, paper, margin, p_difference, p_equivalence)
        for (name, (ours, paper, margin)), p_difference, p_equivalence in zip(
            table.items(), differences, equivalences, strict=True
        )
    }


def shortfall(accuracy: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    """Sensitivity to hyperparameters: how far the mean configuration is behind what one in twenty reaches.

    Not the median one, which knows nothing of a minority that does not train; and not behind the very best:
    of a sample's maximum a bootstrap does not know how far it varies.
    """
    return np.quantile(accuracy, 0.95, axis) - np.mean(accuracy, axis)


def shortfall_interval(accuracy: NDArray[Any]) -> tuple[float, float]:
    """Bootstrap interval of level 1 - ALPHA of the `shortfall` of two or more configurations."""
    drawn = _bootstrap((accuracy,), shortfall)
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def p_less_sensitive(ours: NDArray[Any], theirs: NDArray[Any], margin: float) -> float:
    """Of the one-sided bootstrap test that our `shortfall` is larger than theirs by `margin` or more.

    Paired: the n-th configurations of both have the same factors, hyperparameter by hyperparameter in order.
    """
    drawn = _bootstrap((ours, theirs), lambda a, b, axis: shortfall(a, axis) - shortfall(b, axis))
    return float((1 + np.sum(drawn >= margin)) / (1 + RESAMPLES))


def _bootstrap(samples: tuple[NDArray[Any], ...], statistic: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    from scipy.stats import bootstrap  # takes a second to import

    rng = np.random.default_rng(0)
    drawn = bootstrap(
        samples, statistic, n_resamples=RESAMPLES, method="percentile", rng=rng, paired=len(samples) > 1
    )
    return np.asarray(drawn.bootstrap_distribution)
