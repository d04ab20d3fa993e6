"""The files that a table is written to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmark.common.files import atomic_file


def write_texts(folder: Path, name: str, texts: Mapping[str, str]) -> list[Path]:
    """Write `folder/name.suffix` for every suffix's text, each whole or not at all; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, text in texts.items():
        file = folder / f"{name}.{suffix}"
        with atomic_file(file) as stream:
            stream.write(text.encode())
        files.append(file)
    return files
