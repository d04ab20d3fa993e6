"""`search`: hyperparameters on held-out training samples."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from benchmark import datasets
from benchmark.cli.options import (
    DataRoot,
    Datasets,
    DeviceName,
    Methods,
    Results,
    given_path,
    pick_device,
)
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console
from benchmark.config import CONFIGS, LAST_SEED, load_search, plan_file
from benchmark.studies.search.conduct import run_search
from benchmark.studies.search.design import Search
from benchmark.studies.search.plan_patch import plan_patch
from benchmark.sweep.selection import Selection, check_number


def command(
    method: Methods = None,
    dataset: Datasets = None,
    plan: Annotated[str, typer.Option(help="The plan whose rows are searched for.")] = "table2",
    spaces: Annotated[
        Path, typer.Option(parser=given_path, metavar="FILE", help="Search spaces by row.")
    ] = CONFIGS / "search.yaml",
    trials: Annotated[int | None, typer.Option(help="Other than the row's number of trials.")] = None,
    seed: Annotated[int | None, typer.Option(help="Other than the file's seed.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the winner into the plan, not only into a patch.")
    ] = False,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Search hyperparameters of a plan's rows on held-out training samples; write a patch of the plan."""
    chosen = Selection(plan, results, dataset=dataset, method=method, data_root=data_root, empty_cells=True)
    config = load_search(spaces)
    check_number("--trials", trials)
    check_number("--seed", seed, least=0, most=LAST_SEED)
    file = plan_file(plan)
    on = pick_device(device, chosen.precision)
    rows = chosen.rows
    if method is None:  # those that have a space
        rows = [row for row in rows if row in config.rows]
        if not rows:
            raise UserError(f"{file}: none of its rows has a search space in {spaces}")
    if dataset is None:  # all cells that the plan has, and no others
        runs = chosen.plan.runs(rows, chosen.columns)
    else:
        cells = itertools.product(chosen.columns, rows)
        runs = [chosen.plan.run(r, c) or chosen.plan.run_with(r, c, {}) for c, r in cells]
    searches = []
    for run in runs:  # all is checked before anything trains
        if run.row not in config.rows:
            found = ", ".join(config.rows)
            raise UserError(
                f"{spaces}: no search space for {run.row}, found: {found}; --spaces names another file"
            )
        space = config.rows[run.row]
        if trials is not None and space.grid is not None:
            raise UserError(f"--trials: {trials} found, but {run.row} is searched on a grid, always whole")
        if trials is not None:
            space = space.model_copy(update={"trials": trials})
        drawn = config.seed if seed is None else seed
        searches.append(Search(run, space, config.validation_samples, drawn, chosen.plan.guest))
        searches[-1].check(spaces)
        searches[-1].refuse_lost(chosen.store)
        # Whatever wins can be written there.
        plan_patch(
            file,
            run.row,
            run.column,
            searches[-1].entry(dict.fromkeys(space.names, 1.0) | searches[-1].choices[0], ""),
        )
    catalogue = chosen.plan.datasets
    chosen.refuse_unwritable()
    data = {
        column: datasets.load(column, catalogue[column], data_root=data_root, device=on)
        for column in dict.fromkeys(run.column for run in runs)
    }
    for loaded in data.values():
        loaded.hold_out(config.validation_samples)  # has so many
    if len(searches) > 1:
        names = ", ".join(search.name for search in searches)
        console.print(f"{len(searches)} searches, one after the other: {names}", markup=False)
    failures: list[str] = []
    for search in searches:
        try:
            run_search(search, data[search.run.column], chosen, file, on, apply=apply)
        except UserError as error:  # another process has this one, say; the others go on
            failures += error.args
    if len(searches) > 1:
        console.print(
            "patches change neighbouring lines: apply one, and run this again, which writes the next anew",
            markup=False,
        )
    if failures:
        raise UserError(*failures)
