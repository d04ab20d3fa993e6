"""The commands of `python -m benchmark`: parse, call, print."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from benchmark import datasets
from benchmark.cli.options import (
    RESULTS,
    CompileSetting,
    DataRoot,
    Datasets,
    DeviceName,
    Epochs,
    Methods,
    OpenPage,
    PlanName,
    PlanOption,
    PrecisionSetting,
    ReplicasPerPass,
    Results,
    Seeds,
    Selection,
    check_number,
    console,
    given_path,
    pick_device,
    run_app,
)
from benchmark.common import provenance
from benchmark.common.errors import DataNotFound, UserError
from benchmark.common.progress import progress_bar
from benchmark.comparison import claims
from benchmark.config import CONFIGS, MOST_EPOCHS, known_plans, load_paper_values
from benchmark.engine import replay
from benchmark.engine.compilation import Compile, execution
from benchmark.engine.precision import check as check_precision
from benchmark.engine.samples import Dataset
from benchmark.report import claims as claims_report
from benchmark.report import contents, html
from benchmark.report.contents import MEASURED, REPORTS
from benchmark.report.runs import described
from benchmark.store.record import StoredRun
from benchmark.store.store import Store
from benchmark.studies.search import conduct as search
from benchmark.studies.sensitivity import study as sensitivity
from benchmark.studies.sensitivity.study import PROFILES
from benchmark.studies.timing import measure as timing
from benchmark.sweep import rerun
from benchmark.sweep.columns import advance, train_column
from benchmark.sweep.jobs import Jobs, commands
from benchmark.sweep.plan import Run
from benchmark.sweep.status import State, Status, status

NOT_SUPPORTED = 3
"""Exit status of `verify` for a claim that is not; an error has 1, wrong usage 2."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Trains the methods of the FW-DTP paper and rebuilds its tables from stored results.",
)


@app.command()
def plan(
    name: PlanName,
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    each: Annotated[
        Jobs | None, typer.Option("--commands", help="Only print what trains each missing row, or each seed.")
    ] = None,
) -> None:
    """List a plan's runs, their states, and an estimate of the time left on this machine."""
    chosen = Selection(
        name,
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        data_root=data_root,
        precision=precision,
    )
    if each is not None:
        _print_commands(chosen, each, data_root, device)
        return
    on = pick_device(device, chosen.precision)
    table = Table("row", "data set", "state", "key", "time left", "note")
    statuses = chosen.statuses()
    untimed = any(f.state is not State.STORED and f.seconds_per_epoch is None for f in statuses)
    if untimed:
        timing.note_busy_cores()
        console.print("timing a few iterations of what is not stored, up to a minute each", markup=False)
    with console.status("timing ...") as line:

        def show(run: Run) -> None:
            what = f"timing {run.row} on {run.column}"
            if console.is_terminal:
                line.update(escape(what))
            else:
                console.print(what, markup=False)

        left = timing.seconds_left(statuses, chosen.plan, on, show)
    for found, seconds in zip(statuses, left, strict=True):
        table.add_row(*_state_cells(found), duration(seconds) if seconds else "", escape(found.detail))
    console.print(table)
    _note_empty(chosen)
    where = f"measured here on {provenance.device_name(on)}"
    if untimed and on.type == "cpu":
        where += "; runs of minutes are compiled, which makes them faster"
    for column in dict.fromkeys(found.run.column for found in statuses if found.state is not State.STORED):
        if chosen.plan.datasets[column].train_samples is None:
            where += f"; {column} taken to have {timing.USUAL_SAMPLES} training images (its train_samples)"
    console.print(f"time left: about {duration(sum(left))}, {where}", markup=False)


def _print_commands(chosen: Selection, each: Jobs, data_root: Path | None, device: str) -> None:
    """One a line, for another program to read; the device may be one of another machine."""
    options = [] if data_root is None else ["--data-root", str(data_root)]
    options += [] if device == "auto" else ["--device", device]
    statuses = chosen.statuses()
    listed = list(commands(statuses, chosen.plan, chosen.store, each, *options))
    for command in listed:
        print(command)
    damaged = [found.detail for found in statuses if found.state is State.DAMAGED]
    if damaged:
        raise UserError(*dict.fromkeys(damaged))
    if not listed:
        print("nothing to train", file=sys.stderr)


@app.command("status")
def status_command(
    name: PlanName = "table2",
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Say what is stored, missing, partial, stale or damaged, and whether the store is intact.

    Takes the options of `run` that do not change how it trains, so that its command line serves here, too.
    """
    chosen = Selection(
        name,
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        data_root=data_root,
        precision=precision,
        reading=True,
    )
    pick_device(device)
    table = Table("row", "data set", "state", "key", "note")
    statuses = chosen.statuses()
    for found in statuses:
        table.add_row(*_state_cells(found), escape(found.detail))
    console.print(table)
    _note_empty(chosen)
    damaged = [found.detail for found in statuses if found.state is State.DAMAGED]
    problems = list(dict.fromkeys([*chosen.store.problems(), *damaged]))
    if problems:
        raise UserError(*problems)
    counts = Counter(found.state for found in statuses)
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    complete = len(chosen.store.folders())
    console.print(f"of these: {states}", markup=False)
    console.print(f"store intact: {complete} complete run{'s' * (complete != 1)} in all", markup=False)


def _note_empty(chosen: Selection) -> None:
    for line in chosen.empty():
        console.print(line, markup=False)


def _state_cells(found: Status) -> tuple[str, str, str, str]:
    return escape(found.run.row), found.run.column, found.state.value, found.run.key


@app.command()
def run(
    name: PlanName,
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    compile: CompileSetting = Compile.AUTO,
    replicas_per_pass: ReplicasPerPass = None,
    report: Annotated[bool, typer.Option(help="Rebuild the table afterwards.")] = False,
    needed_for: Annotated[
        str | None, typer.Option("--for", help="Only what table1 or figure2 needs, and rebuild that.")
    ] = None,
) -> None:
    """Train what is missing of a plan; interrupted runs go on where they stopped."""
    check_number("--replicas-per-pass", replicas_per_pass)
    chosen = Selection(
        name,
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        data_root=data_root,
        precision=precision,
    )
    if needed_for is not None:
        chosen.narrow_to_measured(_measurement(needed_for))
    if report or needed_for is not None:
        chosen.refuse_unwritable()
    on = pick_device(device, chosen.precision)
    statuses = chosen.statuses()
    _note_empty(chosen)
    _warn(chosen.store, [found.detail for found in statuses])
    failures: list[str] = []
    for column in chosen.columns:
        statuses = [status(run, chosen.store) for run in chosen.plan.runs(chosen.rows, [column])]
        failures += [found.detail for found in statuses if found.state is State.DAMAGED]
        addition = chosen.plan.config.columns[column].addition and not chosen.named_columns
        try:
            failures += train_column(
                chosen, column, statuses, data_root, on, compile, replicas_per_pass, download=not addition
            )
        except DataNotFound as error:
            if addition:
                console.print(f"skipped (not in the paper): {error}", markup=False)
            else:
                failures.append(str(error))
        except UserError as error:
            failures += error.args
    if report or needed_for is not None:
        try:
            for file in REPORTS[needed_for or "table2"](chosen, console)[0]:
                console.print(f"written: {file}", markup=False)
        except UserError as error:
            failures += error.args
    if failures:
        raise UserError(*dict.fromkeys(failures))


def _measurement(report: str) -> str:
    """What a report rests on, of `run --for`."""
    if report not in MEASURED:
        raise UserError(f"--for: {report!r} found, allowed: {', '.join(MEASURED)}")
    return MEASURED[report]


@app.command("report")
def report_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(REPORTS)}, all, or a plan.")],
    plan: PlanOption = None,
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    results: Results = RESULTS,
    open_page: OpenPage = False,
) -> None:
    """Rebuild a table, a figure, the claims or everything from the store, beside the paper's numbers."""
    if name not in (*REPORTS, "all"):
        if plan is not None:
            raise UserError(f"report: {name!r} found, allowed: {', '.join(REPORTS)}, all")
        if not name.endswith((".yaml", ".yml")) and not (CONFIGS / f"{name}.yaml").is_file():
            raise UserError(
                f"report: {name!r} found, allowed: {', '.join(REPORTS)}, all; or a plan: {known_plans()}"
            )
        name, plan = "table2", name
    for option, given in (("--dataset", dataset), ("--method", method)):
        if given is not None and name not in ("table2", "differences", "curves"):
            raise UserError(f"{option}: goes with report table2, differences and curves, not with {name}")
    chosen = Selection(
        plan or "table2",
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        precision=precision,
        reading=True,
    )
    if open_page and name != "all":
        raise UserError("--open: goes with report all, which makes the page")
    if chosen.plan.changes and name in contents.WHATEVER:
        raise UserError(f"report {name}: {shlex.join(chosen.plan.changes)} found, it takes none of these")
    if name != "all" and not contents.is_available(name, chosen):
        raise UserError(f"report: {chosen.plan.source} has nothing for {name} under these options")
    _refuse_nothing(chosen)
    chosen.refuse_unwritable()
    with _warning(chosen):
        files = contents.report_all(chosen, console) if name == "all" else REPORTS[name](chosen, console)[0]
        for file in files:
            console.print(f"written: {file}", markup=False)
    if open_page:
        html.open_page(files[-1])


def _refuse_nothing(chosen: Selection) -> None:
    """`UserError` where nothing at all is stored under a changed protocol: its tables would be empty."""
    plan = chosen.plan
    runs = plan.runs(list(plan.config.rows), list(plan.config.columns))
    if plan.changes and all(status(run, chosen.store).state in (State.MISSING, State.STALE) for run in runs):
        raise UserError(f"nothing is stored yet for {plan.command()}")


@app.command()
def verify(
    plan: PlanOption = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    results: Results = RESULTS,
) -> None:
    """Judge every claim of the paper on stored results; exit status 3 if one is not supported."""
    chosen = Selection(
        plan or "table2", results, seeds=seeds, epochs=epochs, precision=precision, reading=True
    )
    with _warning(chosen):
        ledger = claims.verify(chosen.plan, chosen.store, load_paper_values()["table2"])
        claims_report.show(ledger, console)
    if ledger.failed:
        raise typer.Exit(NOT_SUPPORTED)


def _warn(store: Store, said: Sequence[str] = ()) -> None:
    """Of what lies in the store unread: a moved run's cell looks like one that was never trained."""
    for problem in store.problems():
        if problem not in said:
            print(f"warning: not read: {problem}", file=sys.stderr)


@contextmanager
def _warning(chosen: Selection) -> Iterator[None]:
    """Warn of what a report is built on; where a damaged run is the end, all of them are errors."""
    store = chosen.store
    try:
        yield
    except UserError as error:
        problems = store.problems()
        if set(error.args) & set(problems):
            raise UserError(*dict.fromkeys([*error.args, *problems])) from None
        _warn(store)
        raise
    _warn(store)


@app.command()
def reproduce(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help=", ".join(PROFILES))],
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    open_page: OpenPage = False,
) -> None:
    """Train and measure everything that is missing, then rebuild all tables and figures, and the page."""
    if profile not in PROFILES:
        raise UserError(f"{profile!r} found, allowed: {', '.join(PROFILES)}")
    plan, failures = PROFILES[profile], list[str]()
    Selection(plan, results).refuse_unwritable()
    steps: tuple[Callable[[], None], ...] = (
        lambda: run(plan, data_root=data_root, results=results, device=device),
        lambda: sensitivity.command(profile=profile, data_root=data_root, results=results, device=device),
        lambda: timing.command(with_table3=True, profile=profile, results=results, device=device),
        lambda: report_command("all", plan=plan, results=results, open_page=open_page),
    )
    for step in steps:
        try:
            step()
        except UserError as error:  # what is there is still shown
            failures += error.args
    if failures:
        raise UserError(*dict.fromkeys(failures))


@app.command("rerun")
def rerun_command(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="Of stored runs, or their folders.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--random", help="Without keys: so many of the cheaper runs.  [default: 3]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of that choice.  [default: 1]")] = None,
    plan: PlanOption = None,
    epochs: Annotated[int | None, typer.Option(help="Only the first ones, where a run has more.")] = None,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    device: DeviceName = "auto",
) -> None:
    """Train stored runs once more, and say whether the same comes out; nothing is stored."""
    check_number("--random", count)
    check_number("--epochs", epochs, most=MOST_EPOCHS)
    for option, given in (("--random", count), ("--seed", seed)):
        if keys and given is not None:
            raise UserError(f"{option}: goes without keys, {', '.join(keys)} given")
    chosen = Selection(plan or "table2", results, data_root=data_root, reading=True)
    on = pick_device(device)
    table = Table("row", "data set", "key", "epochs", "train loss", "test error", "")
    differing = []
    stored_runs = chosen.store.runs()
    if not stored_runs:
        raise UserError(f"{chosen.root}: no stored run to train again")

    def load(stored: StoredRun) -> Dataset:
        if (config := chosen.plan.datasets.get(stored.column)) is None:
            raise UserError(f"{stored.folder}: the data set {stored.column} is not in datasets.yaml")
        return datasets.load(stored.column, config, data_root=data_root, device=on)

    # All is checked before anything trains.
    drawn, data = rerun.choose_at_hand(
        stored_runs,
        keys or [],
        count or 3,
        1 if seed is None else seed,
        load,
        lambda line: console.print(line, markup=False),
    )
    again = [(stored, rerun.run_of(stored, epochs)) for stored in drawn]
    for _, run in again:
        check_precision(run.precision, on)
    for stored, run in again:
        made = described(stored)
        seeds = f"seed{'s' if len(run.seeds) > 1 else ''} {made['seeds']}"
        epochs_of = (
            f"{run.epochs} of {stored.spec['epochs']} epochs (all: {made['time']} on {made['device']})"
        )
        console.print(f"{run.row} on {run.column}, {made['key']}, {seeds}: {epochs_of}", markup=False)
    for stored, run in again:
        column, key = run.column, stored.record["key"]
        with progress_bar(console, f"{run.row} on {column}", run.total_epochs) as update:
            found = rerun.repeat(stored, run, data[column], on, advance(update))
        margin = chosen.plan.config.margins.get(column, 0.0)
        if not found.within(margin):
            differing.append(key)
        deviations = (f"{found.loss:.1e} (relative)", f"{found.error:.2f} of {margin:g} points")
        table.add_row(
            escape(stored.record["row"]), column, key, str(found.epochs), *deviations, found.verdict(margin)
        )
    console.print(table)
    if differing:
        raise UserError(f"trained again, these come out differently: {', '.join(differing)}")


@app.command("replay")
def replay_command(
    files: Annotated[
        list[Path], typer.Argument(parser=given_path, metavar="FILE.npz...", help="Reference traces.")
    ],
    tolerance: Annotated[float, typer.Option(help="Largest deviation allowed.")] = 1e-5,
    device: DeviceName = "auto",
    compile: CompileSetting = Compile.OFF,
) -> None:
    """Replay traces of the released code through the code that trains."""
    if not tolerance >= 0:
        raise UserError(f"--tolerance: {tolerance} found, must be 0 or more")
    on = pick_device(device)
    table = Table(Column("file", overflow="fold"), "method", "steps", *replay.QUANTITIES, "")
    how = execution(compile, None, on)
    deviations = [replay.replay(file, on, execution=how) for file in files]
    for deviation in deviations:
        cells = ["-" if value is None else f"{value:.1e}" for value in deviation.largest.values()]
        verdict = "differs" if deviation.exceeds(tolerance) else "equal"
        table.add_row(deviation.file.name, deviation.method, str(deviation.steps), *cells, verdict)
    console.print(table)
    differing = [str(deviation.file) for deviation in deviations if deviation.exceeds(tolerance)]
    if differing:
        raise UserError(f"deviation above {tolerance:g}: {', '.join(differing)}")


app.command("sensitivity")(sensitivity.command)
app.command("search")(search.command)
app.command("timing")(timing.command)


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def main() -> None:
    """Run a command; a `UserError` becomes a line a problem and exit status 1."""
    run_app(app)
