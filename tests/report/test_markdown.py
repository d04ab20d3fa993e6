"""Tables in Markdown."""

from benchmark.report import markdown


def test_a_table() -> None:
    assert markdown.table(["a", "b"], [("1", "2"), ("3", "")]) == [
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
        "| 3 |  |",
    ]
    assert markdown.table(["a"], []) == ["| a |", "|---|"]


def test_what_would_end_a_cell_or_a_row() -> None:
    assert markdown.table(["a|b"], [["c\nd | e\n"]]) == [r"| a\|b |", "|---|", r"| c d \| e |"]


def test_a_title() -> None:
    assert markdown.title("What", None) == ["# What", ""]
    assert markdown.title("What", "NOT") == ["# What", "", "**NOT**", ""]
