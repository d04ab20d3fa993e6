"""What the tests of the commands share."""

from functools import partial
from pathlib import Path

import pytest

from benchmark.cli import app
from tests.helpers.commands import PLAN, Command


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Command) -> Command:
    """`python -m benchmark` in a folder with a plan and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "tiny.yaml").write_text(PLAN)
    return partial(ended, app.main)
