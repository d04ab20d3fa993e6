"""Bad input: one line that says what was found and what is allowed, a nonzero status, nothing written."""

from pathlib import Path

import pytest

from benchmark.config import CONFIGS
from benchmark.sweep.selection import RESULTS
from tests.helpers.commands import PLAN, RUN, Command, fails, files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "unknown"], "allowed: quick, table2"),
        (["status", ""], "unknown plan"),
        (["status", "missing.yaml"], "no such file"),
        (["status", "."], "unknown plan"),
        (["status", "datasets"], "datasets.yaml"),
        (["bogus"], "bogus"),
        (["run"], "PLAN"),
        (["run", "tiny.yaml", "--bogus"], "--bogus"),
        (["run", "tiny.yaml", "more"], "more"),
        (["run", "tiny.yaml", "--epochs"], "--epochs"),
        *(([*RUN, *more], words) for more, words in (
            (["--method", "unknown"], "--method: 'unknown' found, allowed: BP, FA"),
            (["--method", ""], "--method: ''"),
            (["--method", "BP,"], "--method: ''"),
            (["--dataset", "mnist"], "--dataset: 'mnist' found, allowed: fashion-mnist-mini"),
            (["--device", "bogus"], "--device: 'bogus'"),
            (["--device", "meta"], "--device: 'meta'"),
            (["--device", "cuda:99"], "--device: 'cuda:99'"),
            (["--device", ""], "--device: ''"),
            (["--seeds", "0-"], "--seeds: '0-'"),
            (["--seeds", "a"], "--seeds: 'a'"),
            (["--seeds", "1,1"], "--seeds: '1,1'"),
            (["--seeds", "1-3,2"], "--seeds: '1-3,2'"),
            (["--seeds", ""], "--seeds: ''"),
            (["--seeds", "1,"], "--seeds: '1,'"),
            (["--seeds", "-1"], "--seeds: '-1'"),
            (["--seeds", "3-1"], "--seeds: '3-1'"),
            (["--seeds", "1.5"], "--seeds: '1.5'"),
            (["--seeds", "²"], "--seeds: '²'"),
            (["--seeds", "1-100000000"], "--seeds: '1-100000000'"),
            (["--epochs", "0"], "--epochs: 0"),
            (["--epochs", "-1"], "--epochs: -1"),
            (["--epochs", "9" * 20], "must be from 1 to 1000000"),
            (["--epochs", "x"], "--epochs"),
            (["--epochs", "1.5"], "--epochs"),
            (["--precision", "tf32", "--device", "cpu"], "--precision: tf32 found, which needs a CUDA"),
            (["--replicas-per-pass", "0"], "--replicas-per-pass: 0 found, must be from 1 to 10000"),
            (["--precision", "half"], "'half' is not one of 'highest', 'tf32'"),
            (["--data-root", "missing"], "--data-root: missing is not a folder"),
            (["--data-root", "tiny.yaml"], "--data-root: tiny.yaml is not a folder"),
            (["--results", ""], "'--results': '' found, allowed: a path"),
            (["--data-root", ""], "'--data-root': '' found, allowed: a path"),
        )),
        (["replay", ""], "'' found, allowed: a path"),
        (["run", "quick", "--results", "tiny.yaml"], "tiny.yaml/quick"),
        (["report", "quick", "--results", "tiny.yaml"], "tiny.yaml"),
        *(([name, "table2", "--method", "TP", "--dataset", "cifar-10"],
           "the plan table2 has no hyperparameters of TP on cifar-10")
          for name in ("plan", "run", "status", "report")),
        *(([name, "tiny.yaml", option, "bogus"], words)
          for name in ("plan", "run", "status", "report")
          for option, words in (
              ("--dataset", "--dataset: 'bogus'"), ("--method", "--method: 'bogus'"),
              ("--seeds", "--seeds: 'bogus'"), ("--epochs", "--epochs"))),
        *(([name, "tiny.yaml", option, "bogus"], words)
          for name in ("plan", "run", "status")
          for option, words in (
              ("--data-root", "--data-root: bogus is not a folder"),)),
        *(([name, "tiny.yaml", "--device", "bogus"], "--device: 'bogus'") for name in ("plan", "run")),
        (["report", "tabel2"], "report: 'tabel2' found, allowed: table2, figure2"),
        (["report", "tabel2"], "all; or a plan: quick, table2, table2-deeper, or a path ending in .yaml"),
        (["report", "tabel2", "--plan", "quick"], "report: 'tabel2' found, allowed: table2, figure2"),
        (["report", "table2", "--plan", "bogus"], "unknown plan 'bogus'"),
        (["report", "table2", "--open"], "--open: goes with report all"),
        (["report", "figure2", "--plan", "tiny.yaml"], "tiny.yaml has nothing for figure2"),
        (["report", "table3", "--seeds", "1"], "report table3: --seeds 1 found, it takes none of these"),
        (["report", "curves", "--epochs", "1"], "table2 has nothing for curves under these options"),
        (["report", "differences", "--seeds", "1"], "table2 has nothing for differences under these options"),
        (["report", "differences", "--method", "BP,Foo,Bar"], "--method: 'Foo', 'Bar' found, allowed: BP,"),
        (["run", "tiny.yaml", "--for", "table3"], "--for: 'table3' found, allowed: table1, figure2"),
        (["run", "tiny.yaml", "--for", "figure2"], "--for: the plan measures no jacobian"),
        (["run", "table2", "--for", "figure2", "--method", "BP"], "--for: the plan measures no jacobian"),
        (["verify", "--plan", "bogus"], "unknown plan 'bogus'"),
        (["rerun", "--random", "0"], "--random: 0 found"),
        (["rerun", "--epochs", "0"], "--epochs: 0 found"),
        (["rerun", "--results", "none"], "--results: none does not exist"),
        (["rerun", "--results", "."], "no stored run to train again"),
        (["verify", "--results", "none"], "--results: none does not exist"),
        (["report", "claims", "--method", "BP"], "--method: goes with report table2, differences and"),
        (["report", "all", "--dataset", "mnist"], "--dataset: goes with report table2, differences and"),
        (
            ["report", "tiny.yaml", "--epochs", "7", "--results", "."],
            "nothing is stored yet for python -m benchmark run tiny.yaml --epochs 7 --results .",
        ),
        (["reproduce", "papers"], "'papers' found, allowed: paper, quick"),
        (["replay", "missing.npz"], "missing.npz"),
        (["replay", "tiny.yaml"], "tiny.yaml"),
        (["replay", "."], "."),
        (["replay"], "FILE"),
        (["replay", "missing.npz", "--tolerance", "-1"], "--tolerance: -1"),
        (["replay", "missing.npz", "--tolerance", "nan"], "--tolerance: nan"),
    ],
    ids=repr,
)  # fmt: skip
def test_mistakes(command: Command, tmp_path: Path, arguments: list[str], words: str) -> None:
    assert words in fails(command(*arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_no_data_and_no_network(command: Command, tmp_path: Path) -> None:
    arguments = ("run", "table2", "--method", "BP", "--epochs", "1", "--seeds", "1", "--results", "results")
    line = fails(command(*arguments, "--dataset", "cifar-10"))
    assert "data set cifar-10 not found; looked at data/cifar-10-batches-py" in line
    assert "--data-root" in line
    assert not list(tmp_path.glob("results/runs/*/*"))


def test_a_namesake_of_a_shipped_plan_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "table2.yaml").write_text(PLAN)
    tables = files(RESULTS / "tables")
    assert f"table2.yaml: its tables would replace those of {CONFIGS / 'table2.yaml'}" in fails(
        command("report", "table2.yaml")
    )
    assert files(RESULTS / "tables") == tables
    (tmp_path / "results").mkdir()
    assert command("report", "table2.yaml", "--results", "results")[0] == 0
