"""What the tests of the YAML files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig, load_datasets


@pytest.fixture(scope="session")
def datasets() -> dict[str, DatasetConfig]:
    return load_datasets()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, name: str = "plan.yaml") -> Path:
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
            file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture
def line_of() -> Callable[[pytest.ExceptionInfo[UserError]], str]:
    """The one line of an error."""

    def line_of(error: pytest.ExceptionInfo[UserError]) -> str:
        line = str(error.value)
        assert line
        assert len(line.splitlines()) == 1
        return line

    return line_of
