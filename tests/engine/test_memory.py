"""What memory holds: replicas a pass, what is free, and the limits of batch jobs and containers."""

from pathlib import Path

import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.engine import memory
from benchmark.methods import METHODS

CPU = torch.device("cpu")


def test_replicas_per_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**9)
    small, large = [784, 256, 10], [3072, 1024, 1024, 10]
    cuda = torch.device("cuda")
    dtp, fw = METHODS["DTP"], METHODS["BP"]
    assert memory.replicas_per_pass(dtp, large, 256, CPU) < memory.CPU_REPLICAS
    assert memory.replicas_per_pass(fw, small, 256, CPU) == memory.CPU_REPLICAS
    assert memory.replicas_per_pass(fw, small, 256, cuda) > 100
    assert memory.replicas_per_pass(dtp, large, 256, cuda) > memory.replicas_per_pass(dtp, large, 512, cuda)
    quarter = -(-memory.bytes_per_replica(dtp, large, 256, CPU) // 4)
    monkeypatch.setattr(memory, "free_memory", lambda device: quarter)
    assert memory.replicas_per_pass(dtp, large, 256, CPU) == 1
    monkeypatch.setattr(memory, "free_memory", lambda device: quarter - 1)
    with pytest.raises(
        UserError, match=r"a network 3072-1024-1024-10 in minibatches of 256 takes about 0\.1 GiB"
    ):
        memory.replicas_per_pass(dtp, large, 256, CPU)
    with pytest.raises(UserError, match=r"a network 3072-\.\.\.-10, 21 layers in minibatches"):
        memory.replicas_per_pass(dtp, [3072, *[1024] * 20, 10], 256, CPU)


def test_free_memory_is_there() -> None:
    assert 2**20 < memory.free_memory(CPU) < 2**50


def limited(folder: Path, limit: str, used: int, cached: int) -> None:
    """A control group as the kernel shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\nfile_mapped 9\n")


def test_a_job_has_what_its_tightest_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, own = tmp_path / "groups", tmp_path / "cgroup"
    own.write_text("4:memory:/elsewhere\n0::/slurm/job_7/step_0\n")
    assert memory.limits(own, groups) == []  # version 1, or another system
    limited(groups / "slurm/job_7/step_0", "max", 900, 100)
    assert memory.limits(own, groups) == []
    limited(groups / "slurm/job_7", "4000", 1000, 200)
    limited(groups / "slurm", "900", 1000, 50)
    assert memory.limits(own, groups) == [3207, 0]
    assert memory.limits(tmp_path / "none", groups) == []
    own.write_text("0::/\n")  # a container's own view
    limited(groups, "2000", 500, 0)
    assert memory.limits(own, groups) == [1507]
    monkeypatch.setattr(memory, "limits", lambda: [3200, 1500])
    assert memory.free_memory(CPU) == 1500
