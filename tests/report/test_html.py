"""The page: read with a parser, and looked at in a real browser without a window."""

import functools
import html as entities
import json
import re
import shutil
import subprocess
import threading
import webbrowser
from collections.abc import Sequence
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.config import PaperCell, PaperTable
from benchmark.report import html, table2
from benchmark.report.exhibits import of_table2
from benchmark.report.html import Cell, Column, Exhibit, Figure, Line, Row, Table
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.store.store import Store
from benchmark.sweep.plan import NOT_COMPARABLE
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from tests.helpers.made_up import record_of

NASTY = "<script>document.title='taken'</script> \"&' --><b>"
PLAN = """
title: Made up
comparable: true
protocol: {epochs: 1, batch_size: 256, seeds: [1, 2, 3, 4, 5], source: guess}
margins: {mnist: 0.3, fashion-mnist: 0.3}
networks:
  1x8: {hidden_layers: 1, width: 8, source: guess}
columns:
  mnist: {network: 1x8}
  fashion-mnist: {network: 1x8}
  fashion-mnist-mini: {network: 1x8, addition: true}
rows:
  BP:
    method: BP
    hyperparameters: {mnist: {lr: 0.1, source: guess}}
  DTP:
    method: DTP
    hyperparameters: &dtp
      mnist: {lr: 1.0, stepsize: 0.07, lr_feedback: 0.01, noise_std: 0.02, source: guess}
      fashion-mnist: {lr: 1.0, stepsize: 0.07, lr_feedback: 0.01, noise_std: 0.02, source: guess}
  DRL:
    method: DRL
    hyperparameters: *dtp
  NASTY:
    method: L-DRL
    addition: true
    hyperparameters: *dtp
""".replace("NASTY", yaml.dump(NASTY, default_style='"', width=1000).strip())
PAPER = PaperTable(
    n=5,
    spread="-",
    unit="-",
    cells={
        "BP": {"mnist": PaperCell(mean=1.85, std=0.09)},
        "DTP": {
            "mnist": PaperCell(mean=2.5, std=0.05),
            "fashion-mnist": PaperCell(mean=11.77, std=0.16),
            "fashion-mnist-mini": PaperCell(mean=50.0, std=1.0),
        },
        "DRL": {"mnist": PaperCell(mean=9.0, std=0.5)},
    },
)
FINALS = {
    "BP": [2.0, 2.2, 2.1, 2.3, 1.9],
    "DTP": [2.5, 2.4, 2.5, 2.6, 2.5],
    NASTY: [2.0, 1.8, 1.5, 99.0, 2.0],
}
SITTING = {
    "started": "2026-01-02T03:04:05+00:00",
    "from_epoch": 0,
    "device": "Abacus, 2 threads",
    "execution": "compiled",
    "versions": {"torch": "2.15.0", "commit": "0123456789abcdef0123+changes"},
}
RECORD = {
    "finished": "2026-01-02T04:05:06+00:00",
    "training_seconds": 3723.4,
    "sittings": [SITTING, SITTING | {"device": "Cogwheel", "execution": "eager"}],
}


def select(folder: Path, text: str = PLAN, **options: Any) -> Selection:
    folder.mkdir(exist_ok=True)
    file = folder / "made up.yaml"
    file.write_text(text)
    given = {"dataset": None, "method": None, "seeds": None, "epochs": None, **options}
    return Selection(str(file), folder / "the results", **given)


def fill(chosen: Selection) -> None:
    for row, errors in FINALS.items():
        run = chosen.plan.run(row, "mnist")
        assert isinstance(run, Run)
        finals = zip(run.seeds, errors, strict=False)
        lines = [[1, seed, 0.5, error, error > 90] for seed, error in finals]
        chosen.store.commit(row, record_of(run, **RECORD), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))


def draw(folder: Path, name: str, color: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    Image.new("RGB", (1400, 600), color).save(content, "PNG")
    (folder / f"{name}.pdf").write_bytes(b"%PDF-1.4\n")
    with atomic_file(folder / f"{name}.png") as stream:
        stream.write(content.getvalue())
    return folder / f"{name}.png"


def judged(anchor: str, title: str, lines: Sequence[tuple[str, str]], **more: Any) -> Exhibit:
    """An exhibit of texts with a verdict each."""
    rows = tuple(Row((Cell(text), Cell("", verdict=verdict))) for text, verdict in lines)
    table = Table((Column("claim", wide=True), Column("verdict")), rows)
    return Exhibit(anchor, title, "Whether they hold", table=table, **more)


def build(folder: Path, text: str = PLAN, **options: Any) -> Path:
    """A page with all there can be on it."""
    chosen = select(folder, text, **options)
    if not chosen.store.folders():
        fill(chosen)
    table = table2.build(chosen.plan, chosen.store, PAPER)
    file = folder / "all figures" / "report.html"
    figures = [
        Figure.read(draw(file.parent, name, color), f"{NASTY}: lines that rise", file)
        for name, color in (("figure2", "gray"), ("figure2b", "white"))
    ]
    claims = [
        ("a claim of many words, so that it takes more than a line on any telephone", "SUPPORTED"),
        (NASTY, "NO DATA"),
        ("c", "NOT SUPPORTED"),
        ("d", "INCONCLUSIVE"),
    ]
    verdicts = [(verdict, verdict) for verdict in html.TONES]
    exhibits = [
        of_table2(table, html.links_to(chosen.store, file)),
        judged("claims", "Claims", claims, notes=(NASTY,)),
        Exhibit("figure-2", "Figure 2", "How traces rise", figures=tuple(figures), missing=(f"run {NASTY}",)),
        judged("verdicts", "Verdicts", verdicts, warning=table.warning),
    ]
    text = html.page("A page", f"Introduced by {NASTY}", exhibits, html.provenance(chosen.store, file))
    return html.write(text, file)


class Reader(HTMLParser):
    """The elements of a page, checked for being closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[tuple[str, ...], str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append((tuple(self.open), data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> list[str]:
        return [words for _, words in self.words]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.fixture
def reader(file: Path) -> Reader:
    return Reader(file.read_text())


def test_nothing_is_loaded(file: Path, reader: Reader) -> None:
    for tag, attributes in reader.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "href", "data", "action", "poster") and tag != "a":
                assert str(value).startswith("data:"), (tag, name)
    assert {name for name, _ in reader.elements}.isdisjoint(("script", "iframe", "object", "base", "form"))
    (style,) = re.findall(r"<style>(.*?)</style>", file.read_text(), re.S)
    assert "url(" not in style
    assert "@import" not in style
    external = [a["href"] for a in reader.all("a") if re.match(r"[a-z]+:|//", str(a["href"]))]
    assert external == ["https://doi.org/10.1609/aaai.v37i8.26171"]
    policy = [meta for meta in reader.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1
    assert str(policy[0]["content"]).startswith("default-src 'none'; ")


def test_every_link_leads_somewhere(file: Path, reader: Reader) -> None:
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [str(a["href"]) for a in reader.all("a")]
    inside = {link[1:] for link in links if link.startswith("#")}
    assert {"main", "table-2", "claims", "figure-2", "verdicts", "provenance"} <= inside <= set(ids)
    beside = {link for link in links if not link.startswith(("#", "https:"))}
    for link in beside:
        assert (file.parent / unquote(link)).is_file()
    assert sum(link.endswith("/run.yaml") for link in beside) == len(FINALS)
    assert {"figure2.pdf", "figure2b.pdf"} <= beside


def test_tables_and_figures_say_what_they_are(reader: Reader) -> None:
    assert reader.all("html") == [{"lang": "en"}]
    assert [name for name, _ in reader.elements if re.fullmatch("h[1-6]", name)] == ["h1"] + ["h2"] * 6
    assert len(reader.all("table")) == len(reader.all("caption")) == 4
    assert all(th["scope"] in ("col", "row") for th in reader.all("th"))
    for image in reader.all("img"):
        assert image["alt"] == f"{NASTY}: lines that rise"
        assert (image["width"], image["height"]) == ("700", "300")
    for region in reader.all("div"):
        if region.get("class") == "scroller":
            assert region["tabindex"] == "0"
            assert region["aria-label"]
    assert reader.elements[[name for name, _ in reader.elements].index("body") + 1][1]["class"] == "skip"


def test_a_missing_cell_is_called_missing_once(reader: Reader) -> None:
    assert reader.text().count("missing") == 4
    assert reader.text().count("INCOMPLETE") == 2, "in the table of all verdicts alone"


def test_rows_are_as_long_as_heads(file: Path) -> None:
    for table in re.findall(r"<table>.*?</table>", file.read_text(), re.S):
        lengths = {len(re.findall(r"<t[hd][ >]", row)) for row in re.findall(r"<tr.*?</tr>", table, re.S)}
        assert len(lengths) == 1
        for row in re.findall(r"<tr.*?</tr>", table.split("<tbody>")[1], re.S):
            assert re.findall(r"<t([hd])[ >]", row)[0] == "h"


def test_labels_stay_text(file: Path, reader: Reader) -> None:
    assert file.read_text().count("<script") == file.read_text().count("<b>") == 0
    text = reader.text()
    for words in (f"[{NASTY}]", f"Introduced by {NASTY}", NASTY, f"run {NASTY}"):
        assert words in text


def test_same_results_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path).read_bytes()
    assert build(tmp_path).read_bytes() == first
    assert b"\r" not in first
    dates = set(re.findall(rb"20\d\d-\d\d-\d\d", first))
    assert dates == {b"2026-01-02"}, "only those of the records"


def test_cells_of_table_2(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen)
    table = table2.build(chosen.plan, chosen.store, PAPER)
    exhibit = of_table2(table, lambda key: f"to {key}")
    assert exhibit.table is not None
    assert [column.text for column in exhibit.table.columns] == [
        "method", "#params, 1x8", "MNIST", "F-MNIST", "[F-MNIST (mini)]"
    ]  # fmt: skip
    assert exhibit.caption == "Test error in % after 1 epochs, seeds 1 to 5"
    bp, dtp, drl, nasty = (row.cells for row in exhibit.table.rows)
    assert bp[0] == Cell("BP")
    assert bp[1] == Cell("0.01 M", details=(Line("0.01 M trained"),))
    cell, key = table.cells["BP", "mnist"], table.cells["BP", "mnist"].key
    assert cell.comparison is not None
    interval = "[{:+.2f}, {:+.2f}]".format(*cell.comparison.interval)
    beside = ("n=5", f"#run-{key}"), ("paper 1.85 ± 0.09",), (f"+0.25 {interval}",)
    assert bp[2] == Cell(
        "2.10 ± 0.16",
        f"to {key}",
        tuple(Line(*line) for line in beside),
        cell.verdict,
    )
    assert dtp[2].verdict == "EQUIVALENT"
    assert dtp[2].rank == 0, "DRL is missing"
    assert dtp[2].details[2].text.startswith("+0.00 [−0.")
    assert (bp[3].text, dtp[3].text, dtp[4].text) == ("not planned", "missing", "not planned")
    assert (dtp[3].verdict, dtp[3].href, dtp[3].absent) == ("INCOMPLETE", None, True)
    assert drl[2].details == (Line("paper 9.00 ± 0.50"),)
    assert nasty[2].details == (Line("n=5, 1 diverged", f"#run-{table.cells[NASTY, 'mnist'].key}"),)
    assert len(exhibit.missing) == 4
    assert all(command.startswith("python -m benchmark run ") for command in exhibit.missing)
    assert not exhibit.complete
    assert exhibit.notes == (table2.NOTE, table.verdicts)
    assert dict((verdict, count) for verdict, _, count in exhibit.tally)["INCOMPLETE"] == 2


def test_what_is_not_comparable_is_said_first(tmp_path: Path) -> None:
    text = build(tmp_path, PLAN.replace("comparable: true", "comparable: false")).read_text()
    head, rest = text.split("<nav")
    assert head.count(NOT_COMPARABLE) == 1
    assert '<a href="#table-2">Table 2</a>, <a href="#verdicts">Verdicts</a>.' in head
    assert rest.count(NOT_COMPARABLE) == 2, "above each table that it concerns"
    assert "1.85" not in text


def test_a_page_without_warnings(file: Path) -> None:
    assert 'class="warning"' not in file.read_text()


def test_another_protocol_is_said_first(tmp_path: Path) -> None:
    head = build(tmp_path, epochs=1, seeds="1,2,3,4").read_text().split("<nav")[0]
    assert "NOT THE PAPER&#39;S PROTOCOL: --seeds 1,2,3,4" in head


def test_provenance(tmp_path: Path) -> None:
    chosen = select(tmp_path)
    fill(chosen)
    run = chosen.plan.run("DRL", "mnist")
    assert run is not None
    lines = pd.DataFrame([[1, s, 0.5, 9.0, False] for s in run.seeds], columns=list(EPOCH_COLUMNS))
    chosen.store.commit("DRL", record_of(run), lines)  # which, like the oldest, does not say how it ran
    exhibit = html.provenance(chosen.store, tmp_path / "report.html")
    assert exhibit.table is not None
    found = {row.cells[0].text: row for row in exhibit.table.rows}
    assert set(found) == {*FINALS, "DRL"}
    row = found["DTP"]
    key = chosen.store.folder(str(row.anchor).removeprefix("run-"))
    assert key is not None
    assert row.cells[0].href == f"the%20results/runs/mnist/{key.name}/run.yaml"
    assert [cell.text for cell in row.cells[1:]] == [
        "mnist",
        "1 to 5",
        "1",
        "Abacus, 2 threads; Cogwheel",
        "compiled; eager",
        "1:02:03",
        "2.15.0",
        "0123456789+changes",
        "d" * 12,
        "2026-01-02 04:05 UTC",
    ]
    assert [cell.text for cell in found["DRL"].cells[4:7]] == ["Abacus", "–", "0:00:03"]
    (key / "epochs.csv").write_text("damaged")
    with pytest.raises(UserError, match="changed since the run was stored"):
        html.provenance(chosen.store, tmp_path / "report.html")


def test_an_empty_store_has_a_page(tmp_path: Path) -> None:
    empty = html.provenance(Store(tmp_path / "nothing"), tmp_path / "report.html")
    assert empty.caption.startswith("0 stored runs")
    nothing = Exhibit("x", "X", "Nothing yet")
    assert "Nothing yet" in Reader(html.page("Empty", "", [nothing], empty)).text()
    Reader(html.page("Empty", "", [], empty))


def test_verdicts_are_counted() -> None:
    exhibit = judged("a", "A", [("x", "SUPPORTED"), ("y", "NO DATA")])
    assert exhibit.tally == [("SUPPORTED", "good", 1), ("NO DATA", "none", 1)]
    assert not exhibit.complete
    assert judged("a", "A", [("x", "SUPPORTED")]).complete


def test_verdicts_on_what_is_not_in_the_paper_are_not_counted(tmp_path: Path) -> None:
    chosen = select(
        tmp_path, PLAN.replace("    addition: true\n", "    addition: true\n    paper_row: DRL\n")
    )
    fill(chosen)
    table = table2.build(chosen.plan, chosen.store, PAPER)
    assert table.cells[NASTY, "mnist"].verdict == "INCOMPLETE"
    counted = sum(number for _, _, number in of_table2(table, str).tally)
    of_paper = [place for place, cell in table.cells.items() if cell.verdict and place[0] != NASTY]
    assert counted == len(of_paper) > 0


def test_verdicts_that_are_not_comparable_have_no_colour() -> None:
    shown = ["not comparable: SUPPORTED", "SUPPORTED", "not comparable: SUPPORTED"]
    exhibit = judged("a", "A", list(zip("abc", shown, strict=True)))
    assert exhibit.tally == [("SUPPORTED", "good", 1), ("not comparable: SUPPORTED", "none", 2)]
    assert exhibit.complete
    assert exhibit.table is not None
    assert [row.cells[1].tone for row in exhibit.table.rows] == ["none", "good", "none"]
    assert not judged("a", "A", [("x", "not comparable: NO DATA")]).complete


def test_figures_that_cannot_be_shown(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    png = draw(tmp_path, "figure", "gray")
    assert Figure.read(png, "gray", page).size == (700, 300)
    png.with_suffix(".pdf").unlink()
    with pytest.raises(UserError, match=r"figure\.pdf: not there"):
        Figure.read(png, "gray", page)
    png.write_text("<svg>")
    with pytest.raises(UserError, match="not a PNG file"):
        Figure.read(png, "gray", page)
    with pytest.raises(UserError, match=r"absent\.png: cannot be read"):
        Figure.read(tmp_path / "absent.png", "", page)


def test_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda uri: asked.append(uri) or len(asked) == 1)
    html.open_page(Path("a page.html"))
    assert asked == [f"file://{tmp_path.as_posix()}/a%20page.html"]
    with pytest.raises(UserError, match="no browser found here, the page is a page"):
        html.open_page(Path("a page.html"))


# A browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = (
    "--headless",
    "--no-sandbox",  # in a container everything is root's
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
WIDTHS, SCHEMES = (360, 1280), ("light", "dark")
BAD = """<!DOCTYPE html><title>Bad</title><style>
html { background: #fff } p { color: #999; width: 800px } span { background: #000; color: #333 }
</style><p>Too wide and too <span>faint</span><img src="data:image/png;base64,AAAA" alt="">"""
WRAPPER = """<!DOCTYPE html><link rel="icon" href="data:,"><pre id="seen"></pre>
<script src="browser.js"></script>"""


class Handler(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw: by width and scheme, of the page and of one that is bad."""
    if BROWSER is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(build(folder), folder / "report.html")
    shutil.copy(Path(__file__).with_name("browser.js"), folder)
    (folder / "bad.html").write_text(BAD)
    frames = [("report", width, scheme) for width in WIDTHS for scheme in SCHEMES] + [("bad", 360, "light")]
    # Inside a frame, prefers-color-scheme is the frame's own color-scheme.
    text = "".join(
        f'<iframe name="{page} {width} {scheme}" src="{page}.html" width="{width}" height="740" '
        f'style="border: 0; color-scheme: {scheme}"></iframe>'
        for page, width, scheme in frames
    )
    (folder / "index.html").write_text(WRAPPER + text)
    Handler.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        command = [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
            "--dump-dom",
            f"http://127.0.0.1:{server.server_port}/index.html",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    match = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.S)
    assert match, done.stdout[-500:] + done.stderr[-500:]
    found = json.loads(entities.unescape(match[1]))
    return {"asked": sorted(set(Handler.asked)), **{frame["name"]: frame for frame in found}}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(looks: dict[str, Any], width: int, scheme: str) -> None:
    look = looks[f"report {width} {scheme}"]
    assert look["viewport"] == width
    assert look["width"] <= width, "the page scrolls sideways"
    assert look["dark"] is (scheme == "dark")
    assert look["images"] == [1400, 1400]
    assert look["title"] == "A page"
    assert len(look["contrasts"]) > 100
    assert look["contrasts"][0]["contrast"] >= 4.5, look["contrasts"][:3]


def test_tables_scroll_under_their_first_column(looks: dict[str, Any]) -> None:
    assert looks["report 360 light"]["held"] == {"scrolled": 80, "offset": 0}


def test_the_keyboard_reaches_what_it_should(looks: dict[str, Any]) -> None:
    focus = looks["report 360 light"]["focus"]
    assert focus == {"skip": True, "outlined": True}


def test_the_browser_asks_for_the_page_alone(looks: dict[str, Any]) -> None:
    assert looks["asked"] == ["/bad.html", "/browser.js", "/index.html", "/report.html"]


def test_the_browser_tells_a_bad_page(looks: dict[str, Any]) -> None:
    look = looks["bad 360 light"]
    assert look["width"] > 800
    assert look["images"] == [0]
    faint, wide = look["contrasts"]
    assert faint == {"text": "faint", "contrast": pytest.approx(1.66, abs=0.01)}
    assert wide["contrast"] == pytest.approx(2.85, abs=0.01)
