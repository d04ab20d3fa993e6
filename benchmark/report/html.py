"""One page to look at: tables, figures, verdicts, and where every number comes from, in a single file.

The page loads nothing (style and figures are inside it, and its own policy forbids the rest), runs no script,
and is the same, byte for byte, for the same results. `page.html.j2` and `page.css` are its form.
"""

from __future__ import annotations

import base64
import os
import webbrowser
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2

from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.common.statistics import Verdict
from benchmark.comparison.claims import ClaimVerdict
from benchmark.report import runs
from benchmark.store.record import StoredRun
from benchmark.store.store import Store

TONES: dict[str, str] = {
    Verdict.EQUIVALENT: "good",
    ClaimVerdict.SUPPORTED: "good",
    Verdict.DIFFERENT_WITHIN_MARGIN: "near",
    Verdict.DIFFERENT: "bad",
    ClaimVerdict.NOT_SUPPORTED: "bad",
    Verdict.INCONCLUSIVE: "open",
    Verdict.INCOMPLETE: "none",  # of a claim, too
    ClaimVerdict.NO_DATA: "none",
}
"""The colour of every verdict on a cell or a claim of the paper, which is also written out."""
UNDECIDED = (Verdict.INCOMPLETE, ClaimVerdict.NO_DATA)
"""The verdicts that say that results are missing."""
NOTHING = "–"
PROVENANCE = (
    *("run", "data set", "seeds", "epochs", "device", "execution", "time"),
    *("torch", "commit", "data", "finished"),
)
"""What the page says of every stored run."""
_PNG = b"\x89PNG\r\n\x1a\n"

RunsHref = Callable[[str], str]
"""From a run's key to where the page links it."""


@dataclass(frozen=True)
class Line:
    """A few words, and where they lead."""

    text: str
    href: str | None = None


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    href: str | None = None
    details: tuple[Line, ...] = ()
    """Lines below: the paper's value, the difference."""
    verdict: str | None = None
    """One of `TONES`; others, such as those that are not comparable, have no colour."""
    rank: int = 0
    """1: set in bold, 2: underlined."""
    absent: bool = False
    """There is no value; the text says why, and no verdict is needed."""
    aside: bool = False
    """Not in the paper: its verdict is not counted among those at a glance."""

    @property
    def tone(self) -> str | None:
        return None if self.verdict is None else TONES.get(self.verdict, "none")


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    text: str
    numeric: bool = False
    """Flush right."""
    wide: bool = False
    """Sentences, set in several lines."""


@dataclass(frozen=True)
class Row:
    """One line of a table; its first cell is its head."""

    cells: tuple[Cell, ...]
    anchor: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows under columns, as many cells in each as there are columns."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Figure:
    """A picture inside the page, with its printable form beside the page."""

    png: bytes
    pdf: str
    """Where the page links it."""
    alt: str
    """What is to be seen, for those who do not see it."""

    @classmethod
    def read(cls, png: Path, alt: str, page_file: Path) -> Figure:
        """A figure from its PNG and the PDF of the same name; `UserError` where there is none."""
        pdf = png.with_suffix(".pdf")
        try:
            content = png.read_bytes()
        except OSError as error:
            raise UserError(f"{png}: cannot be read: {error.strerror}") from None
        if not content.startswith(_PNG):
            raise UserError(f"{png}: not a PNG file")
        if not pdf.is_file():
            raise UserError(f"{pdf}: not there, though {png.name} is")
        return cls(content, relative(pdf, page_file), alt)

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the screen: two of the PNG's 200 dots an inch on each of a screen's 96."""
        width, height = (int.from_bytes(self.png[start : start + 4]) for start in (16, 20))  # of the IHDR
        return width // 2, height // 2


@dataclass(frozen=True)
class Exhibit:
    """One section of the page: a table, figures, or both."""

    anchor: str
    title: str
    """As in the paper: `Table 2`."""
    caption: str
    notes: tuple[str, ...] = ()
    warning: str | None = None
    table: Table | None = None
    figures: tuple[Figure, ...] = ()
    missing: tuple[str, ...] = ()
    """The commands that fill what is missing."""

    @property
    def tally(self) -> list[tuple[str, str, int]]:
        """Verdict, tone, and how many there are of it."""
        cells = [cell for row in self.table.rows for cell in row.cells] if self.table else []
        counts = Counter(cell.verdict for cell in cells if cell.verdict is not None and not cell.aside)
        order = [*TONES, *sorted(counts.keys() - TONES.keys())]
        return [(name, TONES.get(name, "none"), counts[name]) for name in order if counts[name]]

    @property
    def complete(self) -> bool:
        return not self.missing and not any(name.endswith(UNDECIDED) for name, _, _ in self.tally)


def page(title: str, intro: str, exhibits: Sequence[Exhibit], provenance: Exhibit) -> str:
    """The page as HTML: the exhibits in the order given, then where their numbers come from."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    warnings: dict[str, list[Exhibit]] = {}
    for exhibit in exhibits:
        if exhibit.warning:
            warnings.setdefault(exhibit.warning, []).append(exhibit)
    return environment.get_template("page.html.j2").render(
        title=title, intro=intro, exhibits=exhibits, provenance=provenance, warnings=warnings
    )


def write(html: str, file: Path) -> Path:
    """Write the page; returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as stream:
        stream.write(html.encode())
    return file


def open_page(file: Path) -> None:
    """Show the page in the reader's browser; `UserError` where there is none."""
    if not webbrowser.open(file.resolve().as_uri()):
        raise UserError(f"--open: no browser found here, the page is {file}")


def relative(target: Path, page_file: Path) -> str:
    """A link from the page to a file beside it."""
    return quote(Path(os.path.relpath(target.resolve(), page_file.resolve().parent)).as_posix())


def links_to(store: Store, page_file: Path) -> RunsHref:
    """Links from the page to the `run.yaml` of the store's runs."""

    def href(key: str) -> str:
        folder = store.folder(key)
        if folder is None:
            raise UserError(f"{store.root}: run {key} is no longer there")
        return relative(folder / "run.yaml", page_file)

    return href


def run_anchor(key: str) -> str:
    """Where the page says how a stored run was made, see `provenance`."""
    return f"run-{key}"


def provenance(store: Store, page_file: Path) -> Exhibit:
    """Where the numbers come from: one row a stored run; `UserError` for a damaged one."""
    columns = [Column(head, numeric=head in ("epochs", "time"), wide=head == "device") for head in PROVENANCE]
    href = links_to(store, page_file)
    stored = store.runs()
    return Exhibit(
        anchor="provenance",
        title="Provenance",
        caption=f"{len(stored)} stored runs: what was trained, on what, and with what",
        notes=(
            "Each run leads to its record: the whole specification, all versions and a checksum of its "
            "numbers; its learning curves lie beside it. Commit: of this project's code, +changes where "
            "files differed from it. Data: the first digits of the SHA-256 checksum of the images.",
            runs.NOTE,
        ),
        table=Table(tuple(columns), tuple(_provenance_row(run, href) for run in stored)),
    )


def _provenance_row(run: StoredRun, href: RunsHref) -> Row:
    values = runs.described(run)
    key, columns = values["key"], PROVENANCE[1:]
    head = Cell(values["run"], href(key), details=(Line(key),))
    cells = (Cell(values[column] or NOTHING, absent=not values[column]) for column in columns)
    return Row((head, *cells), run_anchor(key))
