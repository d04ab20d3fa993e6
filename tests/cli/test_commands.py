"""The commands: what they print, train and write."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmark import datasets
from benchmark.cli.status import duration
from benchmark.common.errors import DataNotFound, UserError
from benchmark.config import PROJECT, DatasetConfig
from benchmark.engine.samples import Dataset
from benchmark.methods.bp import BP
from benchmark.methods.fa import FA
from benchmark.store.record import EPOCH_COLUMNS, key_of
from benchmark.sweep import selection
from benchmark.sweep.selection import Selection
from tests.helpers.commands import MINI, PLAN, RUN, Command, fails, files
from tests.helpers.made_up import record_of


def test_run_status_report(command: Command, tmp_path: Path) -> None:
    assert "--results: results does not exist" in fails(
        command("status", "tiny.yaml", "--results", "results")
    )
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").mkdir()
    code, out, err = command("status", "tiny.yaml", "--results", "results")
    assert (code, err) == (0, "")
    assert "of these: 2 missing\n" in out
    code, out, err = command(*RUN, "--report")
    assert (code, err) == (0, "")
    assert "6000 + 1000 images" in out
    assert out.count("over 2 seeds") >= 2
    code, out, err = command("status", "tiny.yaml", "--results", "results")
    assert (code, err) == (0, "")
    assert "of these: 2 stored\nstore intact: 2 complete runs in all\n" in out
    before = files(tmp_path / "results")
    assert {"tables/tiny.md", "tables/tiny.csv", "tables/tiny.tex"} <= set(before)
    code, out, _ = command(*RUN, "--report")
    assert code == 0
    assert "images" not in out
    assert "2 rows stored, nothing to train" in out
    assert files(tmp_path / "results") == before


def test_plan_estimates(command: Command) -> None:
    code, out, err = command("plan", "tiny.yaml", "--results", "results", "--device", "cpu")
    assert (code, err) == (0, "")
    assert f"\ntiming FA on {MINI}\n" in out
    assert "time left: about" in out
    code, out, _ = command(
        "plan", "tiny.yaml", "--results", "results", "--method", "bp,FA", "--dataset", MINI
    )
    assert code == 0
    assert out.count("missing ") == 2
    assert "of these: 2 missing" in out


def test_the_commands_of_a_plan_train_it(command: Command, tmp_path: Path) -> None:
    plan = ("plan", "tiny.yaml", "--results", "results", "--device", "cpu", "--commands")
    code, out, err = command(*plan, "seeds")
    assert (code, err) == (0, "")
    lines = [shlex.split(line) for line in out.splitlines()]
    assert len(lines) == 4
    assert all(line[-2:] == ["--device", "cpu"] for line in lines)
    (tmp_path / "my data").mkdir()
    _, out, _ = command("plan", "tiny.yaml", "--commands", "rows", "--data-root", "my data")
    assert [shlex.split(line)[-2:] for line in out.splitlines()] == [["--data-root", "my data"]] * 2
    for _, _, _, *words in lines:
        assert command(*words)[0] == 0
    code, out, _ = command(*plan, "seeds")
    together = [shlex.split(line)[3:] for line in out.splitlines()]
    assert [words[3] for words in together] == ["BP", "FA"]
    assert not any("--seeds" in words for words in together)
    for words in together:
        assert command(*words)[0] == 0
    assert command(*plan, "rows") == (0, "", "nothing to train\n")


def test_damage_has_no_command(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--method", "BP")[0] == 0
    (folder,) = (tmp_path / "results").glob("runs/*/*")
    (folder / "epochs.csv").write_text("")
    code, out, err = command("plan", "tiny.yaml", "--results", "results", "--commands", "rows")
    assert (code, out.count("\n"), err.count("\n")) == (1, 1, 1)
    assert "--method FA" in out
    assert "changed since the run was stored" in err
    code, out, err = command(
        "plan", "tiny.yaml", "--results", "results", "--commands", "rows", "--method", "BP"
    )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "nothing to train" not in err


def test_other_protocols_have_tables_of_their_own(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--report")[0] == 0
    before = files(tmp_path / "results")
    assert command(*RUN, "--report", "--seeds", "3,4")[0] == 0
    assert command(*RUN, "--report", "--epochs", "2", "--method", "FA")[0] == 0
    assert command(*RUN, "--report", "--seeds", "1-40", "--method", "BP")[0] == 0
    after = files(tmp_path / "results")
    assert {name: after[name] for name in before} == before
    assert {"tables/tiny-seeds-3-4.md", "tables/tiny-2-epochs.md"} <= set(after)
    assert sum(name.endswith(".md") for name in after) == 4
    status = ("status", "tiny.yaml", "--results", "results")
    _, out, _ = command(*status, "--epochs", "3")
    assert "of these: 2 missing\n" in out
    (tmp_path / "tiny.yaml").write_text(PLAN.replace("lr: 0.1", "lr: 0.2"))
    _, out, _ = command(*status)
    assert "of these: 2 stale\n" in out


def test_without_a_command_it_helps(command: Command) -> None:
    _, out, err = command()
    assert "Usage" in out
    assert err == ""


def test_replay_above_tolerance(command: Command, tmp_path: Path) -> None:
    trace = str(PROJECT / "tests" / "reference_traces" / "bp.npz")
    code, out, err = command("replay", trace, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "equal" in out
    assert "deviation above 0" in fails(command("replay", trace, "--device", "cpu", "--tolerance", "0"))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert "other.npz" in fails(command("replay", "other.npz"))


def test_a_column_that_fails_does_not_stop_the_others(command: Command, tmp_path: Path) -> None:
    text = PLAN.replace(
        f"  {MINI}: {{network: 1x8}}", f"  cifar-10: {{network: 1x8}}\n  {MINI}: {{network: 1x8}}"
    )
    text = text.replace(f"{{{MINI}: {{lr: 0.1", f"{{cifar-10: {{lr: 0.1, source: guess}}, {MINI}: {{lr: 0.1")
    (tmp_path / "tiny.yaml").write_text(text)
    assert fails(command(*RUN)).startswith("error: data set cifar-10 not found; ")
    assert len(list(tmp_path.glob("results/runs/*/*"))) == 2


ADDITION = PLAN.replace("{network: 1x8}\n", "{network: 1x8, addition: true}\n")


def test_only_absent_data_of_an_addition_are_skipped(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(ADDITION)

    def load(error: Exception) -> Callable[..., None]:
        def fail(*arguments: object, **options: object) -> None:
            raise error

        return fail

    monkeypatch.setattr(datasets, "load", load(DataNotFound("nowhere")))
    code, out, err = command(*RUN)
    assert (code, err) == (0, "")
    assert "skipped (not in the paper): nowhere" in out
    assert fails(command(*RUN, "--dataset", MINI)) == "error: nowhere\n"
    chosen = Selection("tiny.yaml", Path("results"), method=["BP"])
    (run,) = chosen.plan.runs(chosen.rows, chosen.columns)
    chosen.store.save_checkpoint(run.key, {})
    file = Path("results/partial") / run.key / "checkpoint.pt"
    file.write_bytes(b"damaged")
    assert fails(command(*RUN)).startswith(f"error: {file} is damaged")
    file.unlink()
    monkeypatch.setattr(datasets, "load", load(UserError("another checksum")))
    assert fails(command(*RUN)) == "error: another checksum\n"


def test_other_images_of_an_unpinned_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = DatasetConfig(title="Mine", kind="image-folder", folder="mine", image=[1, 4, 4], classes=2)
    monkeypatch.setattr(selection, "load_datasets", lambda: {"mine": mine})
    (tmp_path / "tiny.yaml").write_text(PLAN.replace(MINI, "mine"))

    def write(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for part in ("train", "test"):
            for label in "ab":
                folder = tmp_path / "data" / "mine" / part / label
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(4):
                    pixels = draw.integers(0, 256, (4, 4), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")

    def checksum() -> str:
        return f"{datasets.load('mine', mine, data_root=tmp_path / 'data').checksum[:12]}..."

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(0)
    code, _, err = command(*RUN, "--method", "BP")
    assert (code, err) == (0, "")
    assert command(*RUN, "--method", "FA", "--seeds", "3")[0] == 0
    bp, fa = (next(Path("results/runs/mine").glob(f"{row}-*")) for row in ("bp", "fa"))
    before, first = files(tmp_path / "results"), checksum()
    assert command(*RUN, "--method", "BP")[0] == 0
    write(1)
    for more in (["--method", "BP"], [], ["--method", "FA"]):
        code, _, err = command(*RUN, *more)
        *runs, advice = err.splitlines()
        assert code == 1
        assert advice.startswith(
            f"error: mine: image folder holds images of checksum {checksum()} now; delete"
        )
        assert runs == [f"error: {at} was trained on other images (checksum {first})" for at in (bp, fa)]
    assert files(tmp_path / "results") == before
    larger = mine.model_copy(update={"image": [1, 8, 8]})  # other pixels, but by its own declaration
    monkeypatch.setattr(selection, "load_datasets", lambda: {"mine": larger})
    assert command(*RUN)[0] == 0
    after = files(tmp_path / "results")
    assert {name: after[name] for name in before} == before


def test_reports_of_another_protocol(command: Command, tmp_path: Path) -> None:
    """Refused only where nothing at all is stored: of damage and of stored seeds the report tells."""
    assert command(*RUN, "--method", "BP", "--epochs", "2")[0] == 0
    report = ("report", "tiny.yaml", "--results", "results")
    assert command(*report, "--epochs", "2", "--method", "FA")[0] == 0
    assert command(*report, "--epochs", "2", "--seeds", "1")[0] == 0
    (folder,) = (tmp_path / "results").glob("runs/*/*")
    (folder / "epochs.csv").write_text("")
    assert "changed since the run was stored" in fails(command(*report, "--epochs", "2"))


def test_what_goes_on_says_from_where(command: Command) -> None:
    assert command(*RUN, "--method", "BP", "--seeds", "1")[0] == 0
    code, out, _ = command(*RUN)
    assert code == 0
    assert "\nBP resumes: 1 of 2 seeds stored\n" in out
    assert "FA goes on" not in out


def test_diverged_seeds_are_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(PLAN.replace("lr: 0.1", "lr: 1.0e+38", 1))
    code, out, _ = command(*RUN, "--report")
    assert code == 0
    assert "n=2, 2 diverged" in out
    assert "n=2, 2 diverged" in (tmp_path / "results/tables/tiny.md").read_text()
    assert "2 diverged" in (tmp_path / "results/tables/tiny.tex").read_text()


def test_duration() -> None:
    assert [duration(seconds) for seconds in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]


def test_run_for_figure_2_trains_what_it_needs_and_draws_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "measured.yaml").write_text(
        PLAN
        + f"""
  FW-DTP:
    method: FW-DTP
    hyperparameters: {{{MINI}: {{lr: 0.1, stepsize: 0.04, source: guess}}}}
measure:
  jacobian: {{rows: [FW-DTP], columns: [{MINI}]}}
"""
    )
    status, _, err = command("run", "measured.yaml", "--for", "figure2", "--results", "results")
    assert (status, err) == (0, "")
    (trained,) = (tmp_path / "results/runs" / MINI).iterdir()
    assert trained.name.startswith("fw-dtp-")
    assert (tmp_path / "results/figures/figure2-measured.png").stat().st_size > 1000


def test_plans_that_share_a_store_share_no_files(command: Command, tmp_path: Path) -> None:
    """A plan on top of another uses its stored runs, unless it names a directory of its own."""
    measured = f"""
  FW-DTP:
    method: FW-DTP
    hyperparameters: {{{MINI}: {{lr: 0.1, stepsize: 0.04, source: guess}}}}
measure:
  jacobian: {{rows: [FW-DTP], columns: [{MINI}]}}
  conditions: {{rows: [FW-DTP], columns: [{MINI}]}}
"""
    (tmp_path / "tiny.yaml").write_text(PLAN + measured)
    (tmp_path / "mine.yaml").write_text("base: tiny.yaml\ntitle: Mine\nrows: {FA: null}\n")
    (tmp_path / "apart.yaml").write_text("base: tiny.yaml\ntitle: Apart\ndirectory: apart\n")
    assert command(*RUN)[0] == 0
    for changed in ((), ("--seeds", "1")):
        report = ("report", "all", "--results", "results", *changed)
        assert command(*report, "--plan", "tiny.yaml")[0] == 0
        before = files(tmp_path / "results")
        code, out, _ = command(*report, "--plan", "mine.yaml")
        assert code == 0
        after = files(tmp_path / "results")
        assert {name: after[name] for name in before} == before
    added = {name for name in after if "mine" in name}
    assert {"tables/table1-mine.md", "figures/figure2-mine.png", "figures/report-mine.html"} <= added
    assert {"tables/table1-mine-seeds-1.md", "figures/report-mine-seeds-1.html"} <= added
    _, out, _ = command("status", "mine.yaml", "--results", "results")
    assert "of these: 2 stored\n" in out
    _, out, _ = command("status", "apart.yaml", "--results", "results")
    assert "of these: 3 missing\n" in out


def test_stored_seeds_are_put_together_without_data(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mnist.yaml").write_text(PLAN.replace(MINI, "mnist"))
    chosen = Selection("mnist.yaml", tmp_path / "results", method=["BP"], seeds="1,2,3")
    (run,) = chosen.plan.runs(chosen.rows, chosen.columns)
    lines = [[e, s, 0.5, 2.0 + s, False] for e in range(1, run.epochs + 1) for s in run.seeds]
    chosen.store.commit("BP", record_of(run), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))
    asked = ("mnist.yaml", "--method", "BP", "--seeds", "1,3", "--results", "results", "--device", "cpu")
    assert "2 of 2 seeds stored" in command("status", *asked)[1]
    status, out, err = command("run", *asked)
    assert (status, err) == (0, "")
    assert "BP assembled from its stored seeds" in out
    assert " stored " in command("status", *asked)[1]
    assert "4.00 ± 1.41 (n=2)" in command("report", *asked[:-2])[1]


def test_report_all_makes_the_page(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    for _ in range(2):
        status, out, _ = command("report", "all", "--plan", "tiny.yaml", "--results", "results")
        assert status == 0
        page = (tmp_path / "results/figures/report-tiny.html").read_text()
        assert "NOT COMPARABLE WITH THE PAPER" in page
        assert out.splitlines()[-1].endswith("report-tiny.html")
    stored = [path.parent.name for path in tmp_path.glob("results/runs/*/*/run.yaml")]
    assert len(stored) == 2
    assert all(f"{name}/run.yaml" in page for name in stored)


def test_verify_fails_where_a_claim_does(command: Command, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    status, out, _ = command("verify", "--results", "results")
    assert status == 0
    assert "NO DATA" in out
    assert "NOT SUPPORTED:" in out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.comparison.claims.Ledger.failed", True)
        assert command("verify", "--results", "results")[0] == 3


def test_a_row_that_nothing_trains_is_named(command: Command, tmp_path: Path) -> None:
    row = "  Odd: {method: BP, hyperparameters: {mnist: {lr: 0.1, source: guess}}}\n"
    (tmp_path / "tiny.yaml").write_text(PLAN + row)
    assert command(*RUN)[0] == 0
    for arguments in (RUN, ("status", *RUN[1:]), ("plan", *RUN[1:])):
        code, out, err = command(*arguments)
        assert (code, err) == (0, "")
        assert f"Odd: no hyperparameters for any data set of the plan: {MINI}\n" in out


def test_rerun_draws_what_the_data_are_there_for(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    again = ("rerun", "--plan", "tiny.yaml", "--results", "results", "--device", "cpu", "--epochs", "1")
    load = datasets.load

    def absent(name: str, *given: Any, **how: Any) -> Dataset:
        raise DataNotFound(f"data set {name} not found")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", absent)
        assert f"data set {MINI} not found" in fails(command(*again))
    (folder,) = tmp_path.glob(f"results/runs/{MINI}/bp-*")
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record["spec"]["dataset"]["name"] = "mnist"
    record["key"] = key_of(record["spec"])
    moved = tmp_path / "results/runs/mnist" / f"bp-{record['key']}"
    moved.parent.mkdir()
    folder.rename(moved)
    (moved / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))

    def partly(name: str, *given: Any, **how: Any) -> Dataset:
        return absent(name) if name == "mnist" else load(name, *given, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", partly)
        status, out, err = command(*again)
        assert (status, err) == (0, "")
        assert out.count("identical") == 1
        assert "data set mnist not found" in fails(command("rerun", record["key"], *again[1:]))


def test_rerun_says_what_came_out(command: Command, tmp_path: Path) -> None:
    assert command(*RUN)[0] == 0
    again = ("rerun", "--plan", "tiny.yaml", "--results", "results", "--device", "cpu")
    status, out, err = command(*again)
    assert (status, err) == (0, "")
    assert out.count("identical") == 2
    line = r"^(BP|FA) on \S+, [0-9a-f]{12}, seeds? .*: \d+ of \d+ epochs \(all: 0:00:\d\d on .*\)$"
    announced = re.findall(line, out, re.M)
    assert sorted(announced) == ["BP", "FA"]
    epochs = PLAN.split("epochs: ")[1].split(",")[0]
    assert f": 1 of {epochs} epochs (all: " in command(*again, "--epochs", "1")[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FA, "version", FA.version + 1)
        status, out, err = command(*again)
        assert (status, err, out.count("identical")) == (0, "", 1)
        keys = [folder.name.rsplit("-", 1)[1] for folder in sorted(tmp_path.glob("results/runs/*/*"))]
        patch.setattr("benchmark.sweep.rerun.train", lambda *_: pytest.fail("trained before all was checked"))
        assert "made by FA with" in fails(command("rerun", *keys, *again[1:]))
        patch.setattr(BP, "version", BP.version + 1)
        assert "other versions of their methods" in fails(command(*again))
