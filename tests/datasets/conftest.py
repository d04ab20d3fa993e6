"""Nothing of the machine is seen by these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torchvision import datasets as torchvision_datasets

from benchmark.datasets import torchvision_files


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, data, environment or network of the machine."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no network\nin the tests")

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
    monkeypatch.setattr(torchvision_files, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    for module in (torchvision_datasets.mnist, torchvision_datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder
