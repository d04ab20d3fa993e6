"""`search.yaml`: where and how hyperparameters are searched for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from benchmark.config.files import CONFIGS, Strict, read_mapping, validated
from benchmark.config.limits import LAST_SEED, MOST, MOST_EPOCHS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SearchSpace(Strict):
    """What is searched for one row: a grid, or ranges that a sampler draws from."""

    grid: dict[str, Annotated[list[Positive], Field(min_length=1)]] | None = Field(default=None, min_length=1)
    ranges: dict[str, Annotated[list[Positive], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, min_length=1
    )
    """Lowest and highest value; drawn log-uniform."""
    options: dict[str, Annotated[list[str | float | bool], Field(min_length=1)]] = {}
    """Structural choices to compare, by name. Each wave has one combination, the waves take turns."""
    trials: int = Field(default=16, gt=0, le=MOST)
    """Configurations drawn from `ranges` for each combination of `options`."""
    wave: int = Field(default=8, gt=0, le=MOST)
    """Of which so many are trained side by side; the sampler learns from each wave."""
    rungs: list[Annotated[int, Field(gt=0, le=MOST_EPOCHS)]] = Field(min_length=1)
    """Epochs after which a wave is thinned out; the last rung decides."""
    reduction: int = Field(default=3, ge=2)
    """One in so many goes on to the next rung; one in so many epochs, the last ones, counts for it."""

    @model_validator(mode="after")
    def _consistent(self) -> SearchSpace:
        if (self.grid is None) == (self.ranges is None):
            found = "neither found" if self.grid is None else "both found"
            raise ValueError(f"'grid' or 'ranges': {found}, one is required")
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs: {self.rungs} found, must rise")
        for name, values in (self.grid or {}).items():
            if len(set(values)) < len(values):
                raise ValueError(f"grid.{name}: {values} found, each value once")
        if self.grid and (given := self.model_fields_set & {"trials", "wave"}):
            raise ValueError(
                f"{', '.join(sorted(given))}: goes with 'ranges'; a grid is tried whole, at once"
            )
        for name, (low, high) in (self.ranges or {}).items():
            if low >= high:
                raise ValueError(f"ranges.{name}: [{low}, {high}] found, the lowest comes first")
        return self

    def judged(self, rung: int) -> int:
        """The number of last epochs over which the validation error at a rung is averaged."""
        since = rung - max((other for other in self.rungs if other < rung), default=0)
        return min(-(-rung // self.reduction), since)

    @property
    def names(self) -> list[str]:
        return list(self.grid or self.ranges or {})


class SearchConfig(Strict):
    """`search.yaml`: how hyperparameters are searched for."""

    validation_samples: int = Field(gt=0)
    """The last ones of the training set, as in the caption of Table 2."""
    seed: int = Field(ge=0, le=LAST_SEED)
    rows: dict[str, SearchSpace] = Field(min_length=1)


def load_search(file: Path = CONFIGS / "search.yaml") -> SearchConfig:
    """The search spaces by row label."""
    return validated(SearchConfig, read_mapping(file), file)
