"""The YAML files of `paper_configs/` as validated models."""

from benchmark.config.claims import (
    Claim,
    CloseError,
    LessSensitive,
    LowerError,
    Measured,
    TimeRatio,
    load_claims,
)
from benchmark.config.datasets import DatasetConfig, load_datasets
from benchmark.config.files import CONFIGS, PROJECT, dump_yaml, merge, parse_yaml, read_yaml
from benchmark.config.limits import LAST_SEED, MOST, MOST_EPOCHS
from benchmark.config.paper import PaperCell, PaperTable, load_paper_values
from benchmark.config.plan import Hyperparameters, PlanConfig
from benchmark.config.plan_files import known_plans, load_plan, plan_file
from benchmark.config.search import SearchConfig, SearchSpace, load_search

__all__ = [
    "CONFIGS",
    "LAST_SEED",
    "MOST",
    "MOST_EPOCHS",
    "PROJECT",
    "Claim",
    "CloseError",
    "DatasetConfig",
    "Hyperparameters",
    "LessSensitive",
    "LowerError",
    "Measured",
    "PaperCell",
    "PaperTable",
    "PlanConfig",
    "SearchConfig",
    "SearchSpace",
    "TimeRatio",
    "dump_yaml",
    "known_plans",
    "load_claims",
    "load_datasets",
    "load_paper_values",
    "load_plan",
    "load_search",
    "merge",
    "parse_yaml",
    "plan_file",
    "read_yaml",
]
