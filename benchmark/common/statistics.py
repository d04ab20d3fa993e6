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
_NODES = 96
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


def tost_power(ours: Sample, paper: Sample, margin: float, level: float = ALPHA) -> float:
    """Probability that the TOST at this level finds equivalence if there is no true difference.

    The observed deviations are taken for the true ones. Means and deviations of normal samples are
    independent, so the TOST's chance given two estimated deviations is integrated over their chi-square
    distributions, by Gauss-Legendre quadrature on both quantiles.
    """
    true = math.hypot(ours.error, paper.error)
    if not true:
        return 1.0
    nodes, weights = special.roots_legendre(_NODES)
    quantiles, weights = (nodes + 1) / 2, weights / 2
    a, b = (s.n - 1 for s in (ours, paper))
    ours_error = ours.error * np.sqrt(2 * special.gammaincinv(a / 2, quantiles) / a)[:, None]
    paper_error = paper.error * np.sqrt(2 * special.gammaincinv(b / 2, quantiles) / b)[None, :]
    error = np.hypot(ours_error, paper_error)
    share = (ours_error / error) ** 2
    df = 1 / (share**2 / a + (1 - share) ** 2 / b)
    largest = margin - special.stdtrit(df, 1 - level) * error  # difference that is found equivalent
    chance = np.maximum(2 * special.ndtr(largest / true) - 1, 0)
    return float(weights @ chance @ weights)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.sort(p) * np.arange(len(order), 0, -1))
    return [float(value) for value in np.minimum(corrected, 1)]


@dataclass(frozen=True)
class Comparison:
    """A number of ours beside the paper's, as one of a table."""

    ours: Sample
    paper: Sample
    margin: float
    compared: int
    """Numbers of the table that are compared."""
    corrected_p_difference: float
    """(Holm) over the differences of the table."""
    corrected_p_equivalence: float
    """(Holm) over the equivalences of the table."""

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

    @cached_property
    def power(self) -> float:
        """Of this number's TOST alone: see `tost_power`."""
        return tost_power(self.ours, self.paper, self.margin)

    @cached_property
    def corrected_power(self) -> float:
        """The same as the first of all that are compared, where the correction asks most."""
        return tost_power(self.ours, self.paper, self.margin, ALPHA / self.compared)

    @property
    def verdict(self) -> Verdict:
        return _verdict(self.corrected_p_difference, self.corrected_p_equivalence)

    @property
    def alone(self) -> Verdict:
        """What the verdict would be were this the only number compared: of the tests not corrected."""
        return _verdict(self.p_difference, self.p_equivalence)


def _verdict(p_difference: float, p_equivalence: float) -> Verdict:
    different, equivalent = p_difference <= ALPHA, p_equivalence <= ALPHA
    if different:
        return Verdict.DIFFERENT_WITHIN_MARGIN if equivalent else Verdict.DIFFERENT
    return Verdict.EQUIVALENT if equivalent else Verdict.INCONCLUSIVE


def compare(table: Mapping[Name, tuple[Sample, Sample, float]]) -> dict[Name, Comparison]:
    """Compare the (ours, the paper's, margin) of a whole table.

    Two families of tests, one for the differences and one for the equivalences, each corrected over all of
    `table` (Holm), so that in either the chance of a single false positive is at most ALPHA.
    """
    welch = {name: Difference.welch(ours, paper) for name, (ours, paper, _) in table.items()}
    differences = holm([welch[name].p_difference for name in table])
    equivalences = holm([welch[name].p_equivalence(margin) for name, (_, _, margin) in table.items()])
    return {
        name: Comparison(ours, paper, margin, len(table), p_difference, p_equivalence)
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
