"""Timing: the cost formulas against a count of the real step, what is measured, and the command's output."""

import ctypes
import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer

from benchmark.cli.options import run_app
from benchmark.cli.timing import command as timing_command
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.config import CONFIGS
from benchmark.engine.memory import bytes_per_replica
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.engine.training import Training
from benchmark.methods import METHODS
from benchmark.studies.timing import costs
from benchmark.studies.timing import measure as timing
from benchmark.studies.timing import points as timing_points
from benchmark.studies.timing.points import PROFILES, Point
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, Status
from tests.helpers.commands import MINI, PLAN, Command

DIMS = [11, 8, 7, 6, 5]
SAMPLES = 13


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, ended: Command) -> Command:
    """`python -m benchmark.timing` on a machine of given speed."""
    monkeypatch.setattr(timing, "matmul_rate", lambda *shape: 1e9)

    def call(*arguments: str) -> tuple[int, str, str]:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(timing_command)
        return ended(partial(run_app, app), *arguments)

    return call


def test_csv(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "timing.csv"
    arguments = ("--method", "BP,FW-DTP", "--replicas", "1-2", "--seconds", "0", "--device", "cpu")
    code, out, err = command(*arguments, "--csv", str(file))
    assert (code, err) == (0, "")
    assert "FW-DTP" in out
    table = pd.read_csv(file)
    needed = ["method", "dataset", "replicas", "seconds_per_epoch", "matmul_share"]
    assert set(needed) <= set(table.columns)
    assert list(zip(table["method"], table["replicas"], strict=True)) == [
        ("BP", 1),
        ("FW-DTP", 1),
        ("BP", 2),
        ("FW-DTP", 2),
    ]
    assert (table["dataset"] == "mnist").all()
    assert (table[["seconds_per_epoch", "matmul_share", "gflops"]] > 0).all().all()
    each = table["seconds_per_epoch"] / table["replicas"]
    assert table["seconds_per_epoch_and_replica"].tolist() == pytest.approx(each.tolist(), rel=1e-4)
    assert table["matmul_share"].tolist() == pytest.approx((table["gflops"] / 2).tolist(), rel=1e-4)
    assert (table["blocks"] >= 3).all()
    assert (table["iterations"] == 1).all()
    assert (table["std"] >= 0).all()
    written = file.read_bytes()
    code, _, err = command(*arguments, "--csv", str(file))
    assert (code, err) == (1, f"error: --csv: {file} exists already; name another file\n")
    assert file.read_bytes() == written
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    code, out, err = command(*arguments, "--csv", str(tmp_path / "other.csv"))
    assert (code, out, err) == (1, "", f"error: {tmp_path} cannot be written to\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--csv", "missing/timing.csv"],
        ["--replicas", "0"],
        ["--replicas", "a"],
        ["--replicas", ""],
        ["--replicas", "1,1"],
        ["--replicas", "-1"],
        ["--seconds", "-1"],
        ["--seconds", "nan"],
        ["--seconds", "inf"],
        ["--method", "unknown"],
        ["--dataset", "unknown"],
        ["--method", "TP", "--dataset", "cifar-10"],
        ["--device", "cuda:99"],
        ["--bogus"],
        ["--memory", "0"],
        ["--memory", "nan"],
        ["--profile", "quick"],
        ["--again"],
        ["--table3", "--profile", "bogus"],
        ["--table3", "--replicas", "1"],
        ["--table3", "--plan", "quick"],
        ["--plan", "unknown"],
        ["--table3", "--method", "BP"],
        ["--table3", "--dataset", "mnist"],
        ["--table3", "--csv", "timing.csv"],
        ["--table3", "--seconds", "-1"],
    ],
    ids=" ".join,
)
def test_errors(command: Command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert code != 0
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_rows_of_a_plan_of_ones_own(command: Command, tmp_path: Path) -> None:
    """On its first data set, of whose images only the shape matters."""
    (tmp_path / "mine.yaml").write_text(PLAN.replace("  FA:", "  Mine:"))
    options = ("--plan", str(tmp_path / "mine.yaml"), "--replicas", "2", "--seconds", "0", "--device", "cpu")
    file = tmp_path / "timing.csv"
    code, _, err = command(*options, "--csv", str(file))
    assert (code, err) == (0, "")
    found = [(cost.method, cost.dataset, cost.replicas) for cost in costs.read(file)]
    assert found == [("BP", MINI, 2), ("Mine", MINI, 2)]


def test_rows_are_timed_where_they_have_values(command: Command, tmp_path: Path) -> None:
    row = "{method: BP, addition: true, hyperparameters: {fashion-mnist: {lr: 0.1, source: guess}}}"
    base = CONFIGS / "table2.yaml"
    (tmp_path / "mine.yaml").write_text(f"base: {base}\ntitle: Mine\nrows: {{Mine: {row}}}\n")
    file = tmp_path / "timing.csv"
    mine = ("--plan", str(tmp_path / "mine.yaml"), "--method", "Mine", "--device", "cpu", "--csv", str(file))
    code, _, err = command(*mine, "--replicas", "1", "--seconds", "0")
    assert (code, err) == (0, "")
    assert [cost.dataset for cost in costs.read(file)] == ["fashion-mnist"]


def test_unknown_cost_is_no_share(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(costs, "multiply_adds", lambda method, dims, options: None)
    file = tmp_path / "bp.csv"
    arguments = ("--method", "BP", "--replicas", "1", "--seconds", "0", "--device", "cpu")
    code, out, err = command(*arguments, "--csv", str(file))
    assert (code, err) == (0, "")
    assert "- of 2 " in out
    (cost,) = costs.read(file)
    assert cost.seconds_per_epoch
    assert (cost.multiply_adds, cost.gflops, cost.matmul_share) == (None,) * 3


@pytest.mark.parametrize("file", sorted((RESULTS / "timing").glob("table3-*.csv")), ids=lambda f: f.name)
def test_files_of_earlier_versions_are_read(file: Path) -> None:
    """They hold columns that are no longer measured."""
    assert all(cost.skipped or cost.matmul_share for cost in costs.read(file))


def test_matmul_rate_is_a_rate() -> None:
    assert 1e7 < timing.matmul_rate(torch.device("cpu"), 1, 64, 64) < 1e15


@pytest.mark.parametrize(
    ("seconds", "longest", "blocks", "calls"),
    [(0.0, 1000, 3, 1), (80.0, 1000, 10, 4), (80.0, 2, 20, 2), (9.0, 1000, 5, 1), (7.0, 1000, 4, 1)],
)
def test_blocks(
    monkeypatch: pytest.MonkeyPatch, seconds: float, longest: int, blocks: int, calls: int
) -> None:
    """On a clock that an action moves by 2 s, after 1, 9 and 2 s of warming up."""
    clock, durations = [0.0], iter([1.0, 9.0])

    def action() -> None:
        clock[0] += next(durations, 2.0)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    times = timing.block_times(action, torch.device("cpu"), seconds, longest)
    assert times == ([2.0] * blocks, calls)
    assert clock[0] == 1.0 + 9.0 + 2.0 + 2.0 * blocks * calls


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Selection("quick", tmp_path).plan


def small(plan: Plan, row: str, replicas: int, dims: list[int] = DIMS) -> Run:
    run = timing_points.with_replicas(plan, row, "fashion-mnist-mini", replicas)
    return replace(run, dims=dims, batch_size=SAMPLES)


def peak_of(work: Callable[[], object]) -> float:
    """Measure the growth of resident memory in GiB, the largest of three times."""

    def kib(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))

    found = []
    for _ in range(3):
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)  # memory that is freed but held would hide the growth
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
            before = kib("VmRSS")
        except (OSError, AttributeError):
            pytest.skip("needs Linux's /proc")
        work()
        found.append((kib("VmHWM") - before) / 2**20)
    return max(found)


@pytest.mark.parametrize("row", timing_points.ROWS)
def test_expected_memory(plan: Plan, row: str) -> None:
    """Not too little, which would let a measurement exhaust the machine, and not twice too much."""
    run = replace(small(plan, row, 16, [512, *[256] * 4, 10]), batch_size=256)
    on = torch.device("cpu")
    data = timing._random_data(run, on)
    measured = peak_of(lambda: next(timing._training(Point(run), data).iterations()))
    expected = 16 * bytes_per_replica(METHODS[run.method], run.dims, run.batch_size, on)
    assert 0.9 * measured < expected / 2**30 < 2.5 * measured


def test_points_of_table3() -> None:
    plan = Selection("table2", RESULTS).plan
    points = list(timing_points.table3_points(plan))
    assert [(p.run.row, len(p.run.seeds)) for p in points] == [
        (row, n) for row in ("FW-DTP", "DTP", "DRL", "L-DRL", "BP") for n in (1, 5, 100)
    ]
    assert {tuple(p.run.dims) for p in points} == {(3072, 1024, 1024, 1024, 10)}
    assert {costs.feedback_updates(p.run) for p in points} == {0, 5}


def test_a_rule_may_learn_its_feedback_without_updates_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Selection("table2", RESULTS).plan.run("FA", "mnist")
    assert run is not None
    monkeypatch.setattr(METHODS["FA"], "learns_feedback", True)
    assert costs.feedback_updates(run) == 0


def test_only_the_profiles_plans_are_measured(plan: Plan) -> None:
    assert timing_points.profile_of(plan)[0] == "quick"
    assert timing_points.command(plan).startswith(
        "python -m benchmark.timing --table3 --profile quick --results "
    )
    spaced = replace(plan, options=("--results", "my results"))
    assert timing_points.command(spaced).endswith(" --profile quick --results 'my results'")
    with pytest.raises(UserError, match=r"mine has no measured costs, allowed: table2, quick"):
        timing_points.profile_of(replace(plan, source="mine"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer points."""
    monkeypatch.setitem(PROFILES, "quick", replace(PROFILES["quick"], amortised=(2,)))
    monkeypatch.setattr(timing_points, "ROWS", ("FW-DTP", "BP"))
    return iter(())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_what_takes_too_much_memory_is_skipped(
    command: Command, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And the others are measured."""
    training = timing._training

    trained = []

    def full(point: Point, data: Split) -> Training:
        trained.append(point)
        if len(point.run.seeds) == 2:
            raise error
        return training(point, data)

    monkeypatch.setattr(timing, "_training", full)
    options = ("--profile", "quick", "--results", str(tmp_path), "--device", "cpu", "--seconds", "0")
    assert command("--table3", *options)[0] == 0
    (file,) = (tmp_path / "quick" / "timing").iterdir()
    found = {(cost.replicas, cost.skipped) for cost in costs.read(file)}
    assert found == {(1, ""), (2, "the device ran out of memory")}
    assert len(trained) == 1 + 4, "the first one twice, once for what a process takes once"


def test_table3_is_measured_once(command: Command, tiny: None, tmp_path: Path) -> None:
    arguments = ("--profile", "quick", "--results", str(tmp_path / "results"), "--device", "cpu")
    code, out, err = command("--table3", *arguments, "--seconds", "0")
    assert (code, err) == (0, "")
    (file,) = (tmp_path / "results" / "quick" / "timing").iterdir()
    before = file.read_bytes()
    table = tmp_path / "results" / "quick" / "tables" / "table3.md"
    assert "| FW-DTP |" in table.read_text()
    shown = table.read_bytes()
    measured = costs.read(file)
    assert [(c.method, c.replicas) for c in measured] == [(r, n) for r in ("FW-DTP", "BP") for n in (1, 2)]
    table.unlink()
    code, out, err = command("--table3", *arguments)
    assert (code, err) == (0, "")
    rate = f"{measured[0].measured[:10]}, {measured[0].matmul_gflops:.0f} GFLOP/s"
    assert f"measured before: {file} ({rate}); --again measures anew" in out
    assert (file.read_bytes(), table.read_bytes()) == (before, shown)
    code, _, _ = command("--table3", *arguments, "--again", "--seconds", "0")
    assert code == 0
    assert file.read_bytes() != before
    file.write_text("not a table\n")
    code, out, err = command("--table3", *arguments)
    assert code == 1
    assert err.startswith(f"error: {file}")
    assert file.read_text() == "not a table\n"


def test_what_does_not_fit_is_skipped(command: Command, tiny: None, tmp_path: Path) -> None:
    arguments = ("--profile", "quick", "--results", str(tmp_path), "--device", "cpu")
    code, out, err = command("--table3", *arguments, "--memory", "0.0001")
    assert (code, err) == (0, "")
    (file,) = (tmp_path / "quick" / "timing").iterdir()
    for cost in costs.read(file):
        assert cost.skipped == "needs about 0.0 GiB, 0.0 GiB allowed"
        assert cost.seconds_per_epoch is None
    assert "skipped: FW-DTP with 2 replicas" in out


def test_seconds_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Selection("quick", tmp_path, method=["BP,DTP"])
    bp, dtp = chosen.plan.runs(chosen.rows, chosen.columns)
    on = torch.device("cpu")
    statuses = [Status(bp, State.STORED), Status(dtp, State.PARTIAL, "", 2.0, 3)]
    timed: list[Run] = []
    left = timing.seconds_left(statuses, chosen.plan, on, timed.append)
    assert left == [0.0, 2.0 * (dtp.total_epochs - 3)]
    assert timed == []
    monkeypatch.setattr(timing, "matmul_rate", lambda *shape: 1e9)
    (estimate,) = timing.seconds_left([Status(bp, State.MISSING)], chosen.plan, on, timed.append)
    assert 0 < estimate < 600
    assert timed == [bp]


def test_what_would_train_apart_is_timed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled on a CPU, as many replicas train at once as there are threads: one tells the time of all."""
    chosen = Selection("quick", tmp_path, method=["BP"])
    (bp,) = chosen.plan.runs(chosen.rows, chosen.columns)
    timed: list[tuple[int, int]] = []

    def times(point: timing.Point, *_: Any) -> tuple[list[float], int]:
        """In proportion to replicas by threads."""
        replicas, threads = len(point.run.seeds), torch.get_num_threads()
        timed.append((replicas, threads))
        return [0.1 * replicas / threads], 1

    monkeypatch.setattr(timing, "_iteration_times", times)
    estimates = []
    for how in (Execution.EAGER, Execution.COMPILED):
        monkeypatch.setattr(Run, "execution", lambda *_, how=how: how)
        estimates += timing.seconds_left(
            [Status(bp, State.MISSING)], chosen.plan, torch.device("cpu"), lambda run: None
        )
    threads = torch.get_num_threads()
    assert timed == [(3, threads), (1, max(1, threads // 3))]
    if threads < 3 or threads % 3 == 0:  # shared out without a rest
        assert estimates[0] == pytest.approx(estimates[1])


@pytest.mark.parametrize(
    ("busy", "threads", "noted"),
    [(0.1, 4, False), (1.0, 4, True), (1.0, 3, False), (1.9, 3, True)],
)
def test_who_times_on_busy_cores_is_told(
    busy: float,
    threads: int,
    noted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the cores that this process may use: the fourth and fifth belong to others, and are busy."""
    shares = [100 * busy, 0.0, 0.0, 100.0, 100.0, 0.0]
    monkeypatch.setattr(timing.psutil, "cpu_percent", lambda interval, percpu: shares)
    monkeypatch.setattr(timing.os, "sched_getaffinity", lambda process: {0, 1, 2, 5})
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    timing.note_busy_cores()
    assert (f"other processes keep {busy:.1f} of 4 cores busy" in capsys.readouterr().out) == noted


def test_cores_may_be_numbered_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where some are offline: then those that are there are meant."""
    monkeypatch.setattr(timing.psutil, "cpu_percent", lambda interval, percpu: [100.0, 100.0])
    monkeypatch.setattr(timing.os, "sched_getaffinity", lambda process: {4, 5})
    timing.note_busy_cores()
    assert "2.0 of 2 cores busy" in capsys.readouterr().out


def test_samples(tmp_path: Path) -> None:
    plan = Selection("table2", tmp_path).plan
    assert timing.samples_of(plan, "mnist") == 60_000
    assert timing.samples_of(plan, "cifar-10") == 50_000


def test_every_column_is_documented() -> None:
    text = (RESULTS / "timing" / "README.md").read_text()
    rows = [line.split("|")[1] for line in text.split("| column |")[1].splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(
        dict.fromkeys(re.findall(r"`(\w+)`", " ".join(rows)))
    )
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(costs.COLUMNS)
