"""The precision of matrix products, set while a run trains and not beyond."""

import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.engine.execution import check_precision, computing
from benchmark.engine.settings import Precision

CUDA = torch.device("cuda")


def rounds() -> bool:
    return torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(("precision", "expected"), [(Precision.HIGHEST, False), (Precision.TF32, True)])
def test_it_holds_within_and_not_beyond(precision: Precision, expected: bool, before: bool) -> None:
    found = rounds()
    torch.backends.cuda.matmul.allow_tf32 = before
    try:
        with computing(precision, CUDA):
            assert rounds() is expected
        assert rounds() is before
        with pytest.raises(ZeroDivisionError), computing(precision, CUDA):
            raise ZeroDivisionError
        assert rounds() is before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = found


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(UserError, match="--precision: tf32 found, which needs a CUDA device, not cpu"):
        check_precision(Precision.TF32, torch.device("cpu"))
    with computing(Precision.HIGHEST, torch.device("cpu")):
        assert not rounds()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tf32_is_coarser_than_float32() -> None:
    a, b = (torch.randn(512, 512, device=CUDA) for _ in range(2))
    exact = (a.double() @ b.double()).float()
    errors = {}
    for precision in Precision:
        with computing(precision, CUDA):
            errors[precision] = (a @ b - exact).abs().max().item()
    assert errors[Precision.HIGHEST] < 1e-3 < errors[Precision.TF32] < 1
