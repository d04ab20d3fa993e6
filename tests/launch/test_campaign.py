"""Several rows at once, within a time limit."""

import time
from pathlib import Path

import pandas as pd

from benchmark.cli import app
from benchmark.launch.campaign import Job, conduct
from benchmark.store.store import Store
from tests.helpers.commands import Command
from tests.helpers.tiny import PLAN, select


def test_a_campaign_gives_what_single_runs_give(tmp_path: Path, ended: Command) -> None:
    chosen = select(tmp_path)
    plan, device = str(tmp_path / "tiny.yaml"), ("--device", "cpu")
    limits = ("--minutes", "5", "--jobs", "2")
    status, out, _ = ended(
        app.main, "campaign", plan, "--results", str(tmp_path / "together"), *limits, *device
    )
    assert status == 0
    assert "2 done, 0 failed, 0 left" in out
    assert ended(app.main, "run", plan, "--results", str(tmp_path / "alone"), *device)[0] == 0
    for run in chosen.plan.runs(chosen.rows, chosen.columns):
        ours, theirs = (Store(tmp_path / name).load(run.key) for name in ("together", "alone"))
        assert ours is not None
        assert theirs is not None
        pd.testing.assert_frame_equal(ours.epochs, theirs.epochs)


def test_it_stops_at_the_deadline_and_leaves_only_whole_runs(tmp_path: Path, ended: Command) -> None:
    select(tmp_path, PLAN.replace("epochs: 1,", "epochs: 100000,"))
    words = ("campaign", str(tmp_path / "tiny.yaml"), "--results", str(tmp_path / "results"))
    status, out, _ = ended(app.main, *words, "--minutes", "0.05", "--jobs", "2", "--device", "cpu")
    assert status == 0
    assert "0 done, 0 failed, 2 left" in out
    assert not list((tmp_path / "results").glob("runs/*/*"))


def test_a_failed_job_is_named_with_its_last_line_and_the_others_go_on(tmp_path: Path) -> None:
    bad = Job("bad", [["run", "no-such-plan"]], tmp_path / "bad.log")
    good = Job("good", [["run", "--help"], ["--help"]], tmp_path / "good.log")
    lines: list[str] = []
    assert conduct([bad, good], 1, time.monotonic() + 120, lines.append) == (["bad"], [])
    assert any(line.startswith("bad: failed: error: unknown plan 'no-such-plan'") for line in lines)
    assert any(line.startswith("good: done") for line in lines)
