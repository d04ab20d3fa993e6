"""Table 1: the condition that each method is said to obtain, and how far it holds in trained networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from benchmark.engine.jacobian import CONDITIONS_SAMPLES
from benchmark.report import latex, markdown
from benchmark.report.files import write_texts
from benchmark.report.measured import Measured, read
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan


@dataclass(frozen=True)
class Condition:
    """A column of the paper's Table 1."""

    text: str
    tex: str
    quantities: tuple[str, ...]
    """Those that say whether it holds."""


CONDITIONS = {
    "DTP": Condition("J_g = J_f⁺", "$J_{g_l} = J_{f_l}^+$", ("pinv_distance", "pinv_cosine")),
    "DRL": Condition(
        "∏ J_g = (J_f,l:L)⁺",
        r"$\prod_{k=l}^L J_{g_k} = J_{f_{l:L}}^+$",
        ("product_pinv_distance", "product_pinv_cosine"),
    ),
    "L-DRL": Condition("J_g = J_fᵀ", r"$J_{g_l} = J_{f_l}^\top$", ("transpose_distance", "transpose_cosine")),
    "FW-DTP": Condition("tr(J_f J_g) > 0", r"$\mathrm{tr}(J_{f_l} J_{g_l}) > 0$", ("trace",)),
}
"""By method, as printed in Table 1."""
QUANTITIES = {
    "pinv_distance": ("‖J_g − J_f⁺‖ / ‖J_f⁺‖", r"$\|J_g - J_f^+\| / \|J_f^+\|$"),
    "pinv_cosine": ("cos(J_g, J_f⁺)", r"$\cos(J_g, J_f^+)$"),
    "product_pinv_distance": (
        "‖∏ J_g − (J_f,l:L)⁺‖ / ‖(J_f,l:L)⁺‖",
        r"$\|\prod J_g - J_{f_{l:L}}^+\| / \|J_{f_{l:L}}^+\|$",
    ),
    "product_pinv_cosine": ("cos(∏ J_g, (J_f,l:L)⁺)", r"$\cos(\prod J_g, J_{f_{l:L}}^+)$"),
    "transpose_distance": ("‖J_g − J_fᵀ‖ / ‖J_fᵀ‖", r"$\|J_g - J_f^\top\| / \|J_f^\top\|$"),
    "transpose_cosine": ("cos(J_g, J_fᵀ)", r"$\cos(J_g, J_f^\top)$"),
    "product_transpose_distance": (
        "‖∏ J_g − (J_f,l:L)ᵀ‖ / ‖(J_f,l:L)ᵀ‖",
        r"$\|\prod J_g - J_{f_{l:L}}^\top\| / \|J_{f_{l:L}}^\top\|$",
    ),
    "product_transpose_cosine": ("cos(∏ J_g, (J_f,l:L)ᵀ)", r"$\cos(\prod J_g, J_{f_{l:L}}^\top)$"),
    "trace": ("tr(J_f J_g)", r"$\mathrm{tr}(J_f J_g)$"),
    "update_angle": ("∠(update of W, −gradient), degrees", r"$\angle(\Delta W_l, -\nabla_{W_l})$, degrees"),
}
"""As text and in LaTeX."""
STAGES = ("initialisation", "trained")
NOTE = (
    "At initialisation → after the last epoch: mean ± standard deviation (n - 1) over the seeds of the mean "
    "over l = 2..L (of the angle: l = 1..L-1). Bold: what the method's condition is about; an equality holds "
    "where the distance is 0 and the cosine 1. Jacobians at the first sample of each of the first "
    f"{CONDITIONS_SAMPLES} evaluation minibatches (fewer where there are fewer), Frobenius norms; batch "
    "norm's statistics are those of the minibatch, held constant. The angle is that between one update of "
    "W_l and the negative gradient of the cross-entropy on the same minibatch: 90 is no better than chance; "
    "in the output layer, which all methods update by the gradient, it is 0."
)


@dataclass(frozen=True)
class Table1:
    """The table as data."""

    measured: Measured
    data: pd.DataFrame
    """`method`, `stage`, `quantity`, `encoder` (or `mean`: over all), and over seeds `n`, `mean`, `std`."""

    def frame(self) -> pd.DataFrame:
        return self.data

    @property
    def heading(self) -> str:
        return f"Table 1, measured: {self.measured.heading}"

    @property
    def warning(self) -> str | None:
        """Why it may not stand beside the paper's, if so."""
        return self.measured.plan.warning

    def condition(self, row: str) -> Condition | None:
        """What the paper says of the row's method."""
        return CONDITIONS.get(self.measured.plan.config.rows[row].method)

    def claimed(self, row: str, quantity: str) -> bool:
        """Whether the quantity, if measured, is one that the row's condition is about."""
        condition = self.condition(row)
        return row in self.measured.tables and condition is not None and quantity in condition.quantities

    def cell(self, row: str, quantity: str) -> str:
        """`1.00 ± 0.01 → 0.62 ± 0.02`; `-` where nothing is stored."""
        if row not in self.measured.tables:
            return "-"
        return " → ".join(self._value(row, quantity, stage) for stage in STAGES)

    def _value(self, row: str, quantity: str, stage: str) -> str:
        chosen = {"method": row, "quantity": quantity, "stage": stage, "encoder": "mean"}
        found = self.data[(self.data[list(chosen)] == pd.Series(chosen)).all(axis=1)].iloc[0]
        n, digits = found["n"], 1 if quantity == "update_angle" else 2
        if not n:
            return "not finite"
        text = f"{found['mean']:.{digits}f}" + (f" ± {found['std']:.{digits}f}" if n > 1 else "")
        return text if n == self.seeds(row) else f"{text} [n={n}]"

    def seeds(self, row: str) -> int:
        """How many the row has stored."""
        table = self.measured.tables.get(row)
        return 0 if table is None else table["seed"].nunique()

    def head(self, row: str) -> str:
        return f"{row} (n={self.seeds(row)})"


def build(plan: Plan, store: Store) -> Table1:
    """Read the runs that the plan measures from the store; `UserError` for damaged ones or mixed data."""
    measured = read(plan, store, "conditions")
    keys = ["method", "stage", "quantity", "encoder"]
    tables = []
    for row, table in measured.tables.items():
        stage = table["epoch"].map({0: STAGES[0]}).fillna(STAGES[1])
        labelled = table.assign(method=row, stage=stage)
        output = (table["quantity"] == "update_angle") & (table["encoder"] == table["encoder"].max())
        over = labelled[~output].groupby(["method", "stage", "quantity", "seed"], sort=False)["value"]
        # A seed with one encoder that is not finite has no mean.
        means = over.agg(lambda values: values.mean(skipna=False)).reset_index().assign(encoder="mean")
        tables += [labelled.astype({"encoder": str}), means]
    if not tables:
        return Table1(measured, pd.DataFrame(columns=[*keys, "n", "mean", "std"]))
    seeds = pd.concat(tables).groupby(keys, sort=False)["value"]
    return Table1(measured, seeds.agg(n="count", mean="mean", std="std").reset_index())


def body(table: Table1) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Line by line: its head, and for every row a text and whether it is bold."""
    rows = table.measured.rows
    conditions = map(table.condition, rows)
    yield "condition claimed", [("-" if found is None else found.text, False) for found in conditions]
    for quantity, (text, _) in QUANTITIES.items():
        yield text, [(table.cell(row, quantity), table.claimed(row, quantity)) for row in rows]


def show(table: Table1, console: Console) -> None:
    """Print the table, and what would fill it."""
    grid = Grid(title=escape(table.heading), show_lines=True)
    grid.add_column("")
    for row in table.measured.rows:
        grid.add_column(escape(table.head(row)), justify="right")
    for head, cells in body(table):
        grid.add_row(head, *(Text(text, "bold" if bold else "") for text, bold in cells))
    console.print(grid)
    if table.warning:
        console.print(table.warning, style="bold", markup=False)
    console.print(NOTE, markup=False)
    for remark in table.measured.remarks():
        console.print(remark, markup=False)


def write(table: Table1, folder: Path) -> list[Path]:
    """The table as Markdown, CSV (every encoder) and LaTeX; returns the files."""
    csv = table.frame().to_csv(index=False, float_format="%.6g", lineterminator="\n")
    texts = {"md": _markdown(table), "csv": csv, "tex": _latex(table)}
    return write_texts(folder, table.measured.plan.file_name("table1"), texts)


def _markdown(table: Table1) -> str:
    rows = table.measured.rows
    lines = markdown.title(table.heading, table.warning)
    found = [
        [head, *(f"**{text}**" if bold else text for text, bold in cells)] for head, cells in body(table)
    ]
    lines += [*markdown.table(["", *map(table.head, rows)], found), "", NOTE]
    lines += [f"\n{remark}" for remark in table.measured.remarks()]
    return "\n".join(lines) + "\n"


def _latex(table: Table1) -> str:
    rows = table.measured.rows
    heads = [latex.escaped(table.head(row)) for row in rows]
    claims = [condition.tex if (condition := table.condition(row)) else "-" for row in rows]
    found = []
    for quantity, (_, name) in QUANTITIES.items():
        cells = [latex.escaped(table.cell(row, quantity)).replace("→", r"$\to$") for row in rows]
        cells = [
            rf"\textbf{{{cell}}}" if table.claimed(row, quantity) else cell
            for row, cell in zip(rows, cells, strict=True)
        ]
        found.append([name, *cells])
    above = latex.preamble(f"{table.heading}. {NOTE}", table.warning)
    remarks = [f"% {remark}" for remark in table.measured.remarks()]
    lines = latex.table([["", *heads], ["condition claimed", *claims]], found)
    return "\n".join([*above, *remarks, *lines, ""])
