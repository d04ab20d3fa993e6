"""Options that the commands share: what they select, and how a command fails."""

from pathlib import Path

import pytest
import torch

from benchmark.cli.options import pick_device
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.config import PROJECT
from benchmark.report import contents
from benchmark.sweep.selection import Selection
from tests.helpers.tiny import MINI, PLAN


def rows(*methods: str) -> list[str]:
    return Selection("table2", RESULTS, dataset=["mnist"], method=list(methods)).rows


def test_a_list_of_rows_may_hold_labels_with_commas() -> None:
    label = "DRL (as defined, half size)"
    assert rows(label) == [label]
    assert rows(f"FW-DTP, {label.lower()} ,BP") == rows("BP", label, "FW-DTP") == ["BP", label, "FW-DTP"]
    with pytest.raises(UserError, match=r"--method: 'DRL \(as defined' found, allowed: BP, "):
        rows("BP,DRL (as defined,FA")
    with pytest.raises(UserError, match="--method: '' found"):
        rows("BP,,FA")


def test_what_has_no_cell_is_not_left_out_without_a_word(tmp_path: Path) -> None:
    plan = tmp_path / "mine.yaml"
    text = PLAN + "  Odd: {method: BP, hyperparameters: {}}\n"
    plan.write_text(text.replace("columns:", "columns:\n  mnist: {network: 1x8}"))

    def said(dataset: str | None, method: str | None, **how: bool) -> str:
        dataset_, method_ = (None if names is None else [names] for names in (dataset, method))
        try:
            Selection(str(plan), tmp_path / "results", dataset=dataset_, method=method_, **how)
        except UserError as error:
            return str(error).removeprefix(f"the plan {plan} has no hyperparameters of ")
        return ""

    (tmp_path / "results").mkdir()
    assert said(MINI, None) == ""
    assert said(MINI, "BP,Odd") == f"Odd on {MINI}"
    assert said("mnist", "BP") == "BP on mnist"
    assert said(f"mnist,{MINI}", "BP") == "BP on mnist"
    assert said(None, "BP") == ""
    assert said(None, None) == ""
    assert said(None, "Odd") == f"Odd on mnist, {MINI}"
    assert said("mnist", "Odd", empty_cells=True) == ""


def test_what_nothing_trains_on_is_named(tmp_path: Path) -> None:
    plan = tmp_path / "mine.yaml"
    text = PLAN + "  Odd: {method: BP, hyperparameters: {cifar-10: {lr: 0.1, source: guess}}}\n"
    plan.write_text(
        text.replace("columns:", "columns:\n  mnist: {network: 1x8, hyperparameters_from: fashion-mnist}")
    )

    def named(**narrowed: list[str]) -> list[str]:
        given = {"dataset": None, "method": None, **narrowed}
        return list(Selection(str(plan), tmp_path, **given).empty())

    row = f"Odd: no hyperparameters for any data set of the plan: mnist, {MINI}"
    column = "mnist: no row has hyperparameters for it"
    assert named() == [row, column]
    assert named(dataset=[MINI]) == [row]
    assert named(method=["BP"]) == [column]
    shipped = Selection("table2", tmp_path, reading=True)
    assert not list(shipped.empty())


def test_one_plan_and_one_folder_however_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    plain = Selection("table2", RESULTS)
    for plan, results in (("paper_configs/table2.yaml", RESULTS), ("table2", Path("results"))):
        chosen = Selection(plan, results)
        assert (chosen.plan, chosen.root, chosen.figures) == (plain.plan, plain.root, plain.figures)
        assert contents.available(chosen) == contents.available(plain)


@pytest.mark.parametrize(
    ("asked", "available", "expected"),
    [
        ("auto", True, "cuda:0"),
        ("cuda", True, "cuda:0"),
        ("cuda:1", True, "cuda:1"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
    ],
)
def test_the_device_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch, asked: str, available: bool, expected: str
) -> None:
    """CUDA graphs are recorded on the current device, which torch wants with its number."""
    current: list[torch.device] = []

    def set_device(device: torch.device) -> None:
        torch._utils._get_device_index(device)  # what the real one begins with
        current.append(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    assert str(pick_device(asked)) == expected
    assert list(map(str, current)) == ([] if expected == "cpu" else [expected])
