"""How figures look, and how they become files: the same bytes from the same results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import seaborn
from matplotlib.figure import Figure

from benchmark.common.files import atomic_file

PAGE_WIDTH = 6.5
"""Inches between the margins of a page."""
DPI = 200


@contextmanager
def style() -> Iterator[None]:
    """Fonts for print, a palette that colour-blind readers can tell apart, TrueType in PDF files."""
    look = matplotlib.rc_context(
        {"font.size": 8, "axes.titlesize": 9, "legend.frameon": False, "pdf.fonttype": 42}
    )
    with seaborn.axes_style("ticks"), seaborn.color_palette("colorblind"), look:
        yield


def watermark(figure: Figure, warning: str) -> None:
    """Write the beginning of a warning, up to a colon, across the whole figure."""
    text = warning.partition(":")[0]
    figure.text(0.5, 0.5, text, ha="center", va="center", rotation=25, fontsize=18, color="0.5", alpha=0.35)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """`name`.png and `name`.pdf, without dates or program versions; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
        file = folder / f"{name}.{suffix}"
        with atomic_file(file) as stream:
            figure.savefig(stream, format=suffix, dpi=DPI, metadata=metadata)
        files.append(file)
    return files
