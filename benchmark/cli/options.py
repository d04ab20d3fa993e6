"""The options, warnings and exit codes that commands share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from benchmark.common.errors import UserError, interrupted
from benchmark.common.progress import console
from benchmark.engine.settings import Compile, Precision

if TYPE_CHECKING:
    import torch

    from benchmark.store.store import Store
    from benchmark.sweep.selection import Selection


def given_path(text: str) -> Path:
    """The path that an option gives. An empty one, from an unset shell variable, is an error."""
    if not text:
        raise typer.BadParameter("'' found, allowed: a path (. is the current folder)")
    return Path(text)


PlanName = Annotated[
    str, typer.Argument(metavar="PLAN", help="A plan of paper_configs/ (table2, quick), or a path.")
]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Only these data sets: repeat, or a,b.")
]
Methods = Annotated[list[str] | None, typer.Option("--method", help="Only these rows: repeat, or a,b.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds instead of the plan's: 1,2,3 or 1-5.")]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs instead of the plan's.")]
DataRoot = Annotated[
    Path | None, typer.Option(parser=given_path, metavar="PATH", help="Look for data in this folder first.")
]
Results = Annotated[
    Path, typer.Option(parser=given_path, metavar="PATH", help="The folder of the results store.")
]
DeviceName = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto: cuda if there is one.")]
PrecisionSetting = Annotated[
    Precision | None,
    typer.Option("--precision", help="Precision of matrix products; tf32 needs a GPU (default: the plan's)."),
]
CompileSetting = Annotated[
    Compile,
    typer.Option(
        "--compile",
        help="torch.compile: on, off, or auto (on a CPU for long runs; on a GPU, CUDA graphs instead).",
    ),
]
ReplicasPerPass = Annotated[
    int | None,
    typer.Option(help="Replicas trained side by side (default: what memory holds, on a CPU at most 25)."),
]
PlanOption = Annotated[
    str | None,
    typer.Option("--plan", help="The plan: table2, quick, or a path (default: table2)."),
]
OpenPage = Annotated[bool, typer.Option("--open", help="Show the page in a browser.")]


def pick_device(name: str, precision: Precision = Precision.HIGHEST) -> torch.device:
    """The device with this name. `UserError` if it is not there or does not support the precision."""
    import torch

    from benchmark.engine.execution import check_precision

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError):
        found = f"cpu, {torch.cuda.device_count()} CUDA devices"
        raise UserError(f"--device: {name!r} cannot be used, found here: {found}") from None
    check_precision(precision, device)
    return device


def command_of(function: Callable[..., None], name: str | None = None) -> Any:
    """The command that calls a function; the function's arguments are its options."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(function)
    return typer.main.get_command(single)


def run_command(function: Callable[..., None]) -> None:
    """Run a program of one command, such as `python -m benchmark.search`."""
    run_app(command_of(function))


def run_app(application: Callable[..., Any]) -> None:
    """Run an application. Errors become lines on stderr and an exit code."""
    stopped = signal.SIGINT

    def stop(number: int, _: object) -> NoReturn:
        nonlocal stopped
        stopped = signal.Signals(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)  # the signal of a batch system
    try:
        status = application(standalone_mode=False)
        if status == 130:  # typer's status for Ctrl-C
            raise KeyboardInterrupt
    except UserError as error:
        _fail(*error.args)
    except OSError as error:  # a full disk, a read-only folder
        named = error.filename is not None and error.filename2 is None
        _fail(f"{error.filename}: {error.strerror}" if named else error)
    except (typer.Abort, KeyboardInterrupt):
        interrupted(128 + stopped)
    except Exception as error:
        # typer's usage errors come from click or from its own copy of it; both have this method.
        if hasattr(error, "format_message"):
            if message := error.format_message():  # without arguments there is the help instead
                print(f"error: {message}", file=sys.stderr)
            sys.exit(2)
        from benchmark.engine.memory import ran_out

        if ran_out(error):
            needs = "smaller networks or fewer replicas at once (of run: --replicas-per-pass) need less"
            _fail(f"there is too little memory; {needs}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(*problems: object) -> NoReturn:
    """Print a line for each problem and exit with status 1."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1)


def note_empty(chosen: Selection) -> None:
    """Print a line for each row and data set that the plan has no hyperparameters for."""
    for line in chosen.empty():
        console.print(line, markup=False)


def warn(store: Store, said: Sequence[str] = ()) -> None:
    """Warn of the damaged runs in the store, except those in `said`."""
    for problem in store.problems():
        if problem not in said:
            print(f"warning: not read: {problem}", file=sys.stderr)


@contextmanager
def warning(chosen: Selection) -> Iterator[None]:
    """Warn of problems in the store after a report. If a damaged run stops the report, all are errors."""
    store = chosen.store
    try:
        yield
    except UserError as error:
        problems = store.problems()
        if set(error.args) & set(problems):
            raise UserError(*dict.fromkeys([*error.args, *problems])) from None
        warn(store)
        raise
    warn(store)
