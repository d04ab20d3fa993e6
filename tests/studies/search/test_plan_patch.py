"""A patch changes one cell of a plan's file, however the file is written, or is refused."""

import subprocess

import pytest

from benchmark.common.errors import UserError
from benchmark.config import read_yaml
from benchmark.studies.search.plan_patch import plan_patch

ENTRY = {
    "lr": 0.25,
    "stepsize": 1e-05,
    "source": "search",
    "note": "Validation error 1.5 %: best of 3, it's said.",
}
FLOW = """
rows:
  BP:
    hyperparameters:
      mnist: {lr: 0.1, source: guess}  # why
      cifar-10: {lr: 0.2, source: guess}  # and why here
  FA: {method: FA, hyperparameters: {mnist: {lr: 0.1, source: guess}}}
"""
BLOCK = """
rows:
  BP:
    method: BP
    hyperparameters:
      mnist:
        lr: 0.1
        source: guess  # why

      # of the other one
      cifar-10:
        lr: 0.2
        note: >-
          two
          lines
        source: guess
    # of the row
    addition: true
  # of what follows
  FA:
    hyperparameters:
      mnist: {lr: 0.1,
              source: guess,
      }
margins:
    mnist: 1
"""
SCALAR = """
rows:
  BP:
    hyperparameters:
      mnist:
        note: |
          two
          lines
"""
EMPTY = "rows:\n  BP:\n    hyperparameters: {}\n"
PLANS = {
    "flow": FLOW,
    "block": BLOCK,
    "empty": EMPTY,
    "no last newline": FLOW.rstrip(),
    "block without last newline": BLOCK[: BLOCK.index("    # of the row")].rstrip(),
    "no rows": "base: quick.yaml\ntitle: Mine  # as it is\n",
    "no such row": FLOW.replace("BP", "TP"),
    "a row without values": "rows:\n  BP:\n    method: BP  # of all\n  FA: {method: FA}\n",
    "json": '{"rows": {"BP": {"hyperparameters": {"mnist": {"lr": 0.1, "source": "guess"}}}}}',
    "a block scalar last": BLOCK.replace("        source: guess\n    # of", "    # of"),
    "no value": FLOW.replace("mnist: {lr: 0.1, source: guess}  # why", "mnist:  # why", 1),
    "a block scalar at the end": SCALAR,
    "a block scalar before a comment": f"{SCALAR}      # of cifar\n      cifar-10: {{lr: 0.1}}\n",
    "windows": BLOCK.replace("\n", "\r\n"),
    "an alias beside it": FLOW.replace("{mnist: {lr: 0.1", "{mnist: {lr: &rate 0.1") + "  TP: {lr: *rate}\n",
    "odd ends of lines": "title: 'a\u2028b'\n" + FLOW,
}


@pytest.mark.parametrize("column", ["mnist", "cifar-10", "fashion-mnist", "1e3"])
@pytest.mark.parametrize("text", PLANS.values(), ids=PLANS)
def test_a_patch_changes_one_cell_and_no_comment(tmp_path, text, column):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text.encode())
    expected = read_yaml(file)
    row = expected.setdefault("rows", {}).setdefault("BP", {})
    row.setdefault("hyperparameters", {})[column] = ENTRY
    (tmp_path / "winner.patch").write_bytes(plan_patch(file, "BP", column, ENTRY).encode())
    command = ["patch", "--binary", "-p1", "-i", "winner.patch"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert read_yaml(file) == expected
    after = file.read_bytes().decode()
    assert after.endswith("\n") == text.endswith("\n")
    assert after.count("\r\n") in (0, after.count("\n"))
    assert [comment for _, comment in commented(after)] == [comment for _, comment in commented(text)]
    others = [line for line in commented(text) if line[1].strip() != "why" and f"{column}:" not in line[0]]
    assert set(others) <= set(commented(after))


def commented(text):
    """Lines with a comment: what stands before it, and the comment."""
    return [tuple(line.split("#", 1)) for line in text.split("\n") if "#" in line]


def test_the_same_values_are_an_empty_patch(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(FLOW)
    assert plan_patch(file, "BP", "mnist", {"lr": 0.1, "source": "guess"}) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [BP]\n", "changed alone"),
        ("rows:\n  BP:\n  FA: {method: FA}\n", "changed alone"),  # removes the base's row
        (
            FLOW.replace("mnist: {", "mnist: &a {", 1).replace("{lr: 0.2, source: guess}", "*a"),
            "changed alone",
        ),
        (
            "rows:\n  FA:\n    hyperparameters: &all\n      mnist: {lr: 0.1}\n      cifar-10: {lr: 0.1}\n"
            "  BP:\n    hyperparameters: *all\n",
            "changed alone",
        ),
    ],
)
def test_a_cell_that_cannot_be_changed_alone(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        plan_patch(file, "BP", "cifar-10", ENTRY)
    assert file.read_text() == text
