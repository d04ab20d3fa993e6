"""The paper's own numbers, as copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import UserError
from benchmark.config import load_paper_values

Write = Callable[..., Path]
LineOf = Callable[[pytest.ExceptionInfo[UserError]], str]


@pytest.mark.parametrize(
    ("table", "row", "column", "mean", "std"),
    [
        ("table2", "BP", "mnist", 1.85, 0.09),
        ("table2", "BP", "cifar-10", 46.16, 1.15),
        ("table2", "FA", "fashion-mnist", 12.58, 0.35),
        ("table2", "TP", "mnist", 78.99, 2.04),
        ("table2", "DTP (half size)", "mnist", 3.24, 0.15),
        ("table2", "DTP (half size)", "cifar-10", 52.17, 0.79),
        ("table2", "DTP", "cifar-100", 77.11, 0.20),
        ("table2", "DRL (half size)", "fashion-mnist", 12.75, 0.52),
        ("table2", "DRL", "cifar-10", 48.79, 0.58),
        ("table2", "DRL", "cifar-100", 75.62, 0.35),
        ("table2", "L-DRL (half size)", "cifar-10", 49.58, 0.33),
        ("table2", "L-DRL", "cifar-100", 75.62, 0.31),
        ("table2", "FW-DTP", "mnist", 2.76, 0.10),
        ("table2", "FW-DTP", "fashion-mnist", 11.76, 0.37),
        ("table2", "FW-DTP", "cifar-10", 48.97, 0.32),
        ("table2", "FW-DTP", "cifar-100", 76.76, 0.45),
        ("table3-seconds", "FW-DTP", "cifar-10", 2.22, 0.02),
        ("table3-seconds", "DTP", "cifar-10", 8.32, 0.36),
        ("table3-seconds", "DRL", "cifar-10", 9.52, 0.08),
        ("table3-ratio", "DTP", "cifar-10", 3.74, 0.17),
        ("table3-ratio", "L-DRL", "cifar-10", 3.99, 0.05),
        ("table3-ratio", "BP", "cifar-10", 0.34, 0.01),
        ("table3-error", "BP", "cifar-10", 46.16, 1.15),
        ("table3-error", "L-DRL", "cifar-10", 49.84, 0.55),
    ],
)
def test_paper_values(table: str, row: str, column: str, mean: float, std: float) -> None:
    """Copied by hand from the paper's Tables 2 and 3."""
    cell = load_paper_values()[table].cells[row][column]
    assert (cell.mean, cell.std) == (mean, std)


def test_paper_values_are_complete() -> None:
    values = load_paper_values()
    assert sum(len(row) for row in values["table2"].cells.values()) == 37  # 4 x 9 and TP on MNIST
    methods = {"FW-DTP", "DTP", "DRL", "L-DRL", "BP"}
    for table in ("table3-seconds", "table3-ratio", "table3-error"):
        assert set(values[table].cells) == methods
        assert values[table].n == 5
    for row, cells in values["table3-error"].cells.items():
        assert cells["cifar-10"] == values["table2"].cells[row]["cifar-10"]
    for row, cells in values["table3-ratio"].cells.items():
        seconds = values["table3-seconds"].cells
        ratio = seconds[row]["cifar-10"].mean / seconds["FW-DTP"]["cifar-10"].mean
        assert cells["cifar-10"].mean == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"cells": {"BP": {"mnist": {"mean": "1.85", "std": 0.09}}}}, "t.cells.BP.mnist.mean: '1.85' found"),
        ({"cells": {"BP": {"mnist": {"mean": -1.85, "std": 0.09}}}}, "t.cells.BP.mnist.mean: -1.85 found"),
        ({"cells": {"BP": {"mnist": {"mean": math.nan, "std": 0.09}}}}, "t.cells.BP.mnist.mean: nan found"),
        ({"cells": {"BP": {"mnist": {"mean": 1.85, "std": math.inf}}}}, "t.cells.BP.mnist.std: inf found"),
        ({"cells": {"BP": {"mnist": {"mean": math.inf, "std": 0.09}}}}, "t.cells.BP.mnist.mean: inf found"),
        ({"cells": {"BP": {"mnist": {"mean": 1.85, "std": -0.09}}}}, "t.cells.BP.mnist.std: -0.09 found"),
        (
            {"cells": {"BP": {"mnist": {"mean": 100.5, "std": 0.09}}}},
            "t: BP on mnist: 100.5 found, at most 100",
        ),
        ({"cells": {"BP": {"mnist": {"mean": 185, "std": 0.09}}}}, "t: BP on mnist: 185 found, at most 100"),
        ({"n": 1}, "t.n: 1 found"),
    ],
)
def test_bad_paper_values(write: Write, line_of: LineOf, table: dict[str, Any], expected: str) -> None:
    good = {"n": 5, "spread": "s", "unit": "test error in %", "cells": {}}
    file = write({"t": {**good, **table}})
    with pytest.raises(UserError) as error:
        load_paper_values(file)
    assert line_of(error).startswith(f"{file}: {expected}")


def test_seconds_have_no_upper_bound(write: Write) -> None:
    cells = {"BP": {"mnist": {"mean": 185, "std": 0.09}}}
    file = write({"t": {"n": 5, "spread": "s", "unit": "seconds", "cells": cells}})
    assert load_paper_values(file)["t"].cells["BP"]["mnist"].mean == 185
