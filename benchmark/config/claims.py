"""The claims of `claims.yaml`: sentences of the paper, and how each is checked."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from benchmark.common.errors import UserError
from benchmark.config.files import CONFIGS, Names, Strict, distinct, load_each


class _Pairs(Strict):
    """Every row of `rows` against every row of `against`, on every data set."""

    rows: Names
    against: Names
    columns: Names

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if twice := [row for row in self.rows if row in self.against]:
            raise ValueError(f"against: {twice[0]!r} found, which is among 'rows'")
        return self


class LowerError(_Pairs):
    """The test error is lower, or higher by less than the margin."""

    kind: Literal["lower_error"]


class CloseError(_Pairs):
    """The test errors differ by less than `within` points plus margin."""

    kind: Literal["close_error"]
    within: float = Field(ge=0, allow_inf_nan=False)


class LessSensitive(_Pairs):
    """Random hyperparameters cost less accuracy, up to the margin in points."""

    kind: Literal["less_sensitive"]


class _Bounded(Strict):
    """A number lies above or below a bound, or about a value; the margin widens the bound."""

    above: float | None = None
    below: float | None = None
    about: float | None = None

    @model_validator(mode="after")
    def _one(self) -> _Bounded:
        if sum(bound is not None for bound in (self.above, self.below, self.about)) != 1:
            raise ValueError("one of 'above', 'below', 'about' is required")
        return self

    def interval(self, margin: float) -> tuple[float, float]:
        """The open interval in which the number must lie."""
        if self.about is not None:
            return self.about - margin, self.about + margin
        low = -math.inf if self.above is None else self.above - margin
        return low, math.inf if self.below is None else self.below + margin


class Measured(_Bounded):
    """A measured number lies within bounds, for every seed."""

    kind: Literal["measured"]
    of: Literal["test_error", "trace", "nonnegative", "nonnegative_symmetric"]
    """The test error of the last epoch, or what `jacobian.spectrum` measures."""
    rows: Names
    columns: Names
    encoders: Annotated[list[Annotated[int, Field(gt=1)] | Literal["last"]], AfterValidator(distinct)] = []
    """Indices l of the encoders whose Jacobians are checked."""
    from_epoch: int | None = Field(default=None, gt=0)
    """Check every epoch from this one on; None checks only the last."""
    trend: bool = False
    """Check the rank correlation (Spearman) of the number with the epoch: 1 means that it always rises."""

    @model_validator(mode="after")
    def _consistent(self) -> Measured:
        if (self.of == "test_error") == bool(self.encoders):
            raise ValueError("'encoders' are required for a measurement of Jacobians, and for nothing else")
        if self.of == "test_error" and self.from_epoch is not None:
            raise ValueError("'from_epoch' is for measurements of Jacobians")
        if self.trend and self.from_epoch is None:
            raise ValueError("'trend' requires 'from_epoch'")
        return self


class TimeRatio(_Pairs, _Bounded):
    """The ratio of the two rows' seconds per epoch lies within bounds."""

    kind: Literal["time_ratio"]
    above: float | None = Field(None, gt=0)
    below: float | None = Field(None, gt=0)
    about: float | None = Field(None, gt=0)


Check = LowerError | CloseError | Measured | TimeRatio | LessSensitive


class Claim(Strict):
    """A sentence of the paper and its check on stored results."""

    section: str
    quote: str
    """Verbatim."""
    check: Check = Field(discriminator="kind")
    need: Literal["all", "any"] = "all"
    """Whether all parts of the check must hold, or any."""
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["plan"]
    """Tolerance of the check; `plan` takes the data set's margin from the plan."""
    reason: str
    """Why this check and this margin."""

    @model_validator(mode="after")
    def _margin(self) -> Claim:
        if self.margin == "plan" and not isinstance(self.check, LowerError | CloseError):
            raise ValueError("margin: 'plan' is for test errors, a number expected")
        return self


def load_claims(
    rows: Collection[str], columns: Collection[str], file: Path = CONFIGS / "claims.yaml"
) -> dict[str, Claim]:
    """Load the claims by name; `UserError` for an unknown row or data set."""
    claims = load_each(Claim, file)
    allowed = {"rows": rows, "against": rows, "columns": columns}
    for name, claim in claims.items():
        for key, given in claim.check:
            for unknown in sorted(set(given) - set(allowed[key])) if key in allowed else []:
                listed = ", ".join(allowed[key])
                raise UserError(f"{file}: {name}.check.{key}: unknown {unknown!r}, allowed: {listed}")
    return claims
