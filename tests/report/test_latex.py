"""Tables in LaTeX."""

from benchmark.report import latex


def test_special_characters_reach_latex_as_they_are() -> None:
    assert latex.escaped("a & b_1 #2 5 % {$}") == r"a \& b\_1 \#2 5 \% \{\$\}"
    assert latex.escaped("\\~^|<>") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textbar{}\textless{}\textgreater{}"
    )
    assert latex.escaped("[2.5 ± 0.1 · 3]") == r"{[}2.5 $\pm$ 0.1 $\cdot$ 3]"


def test_a_table() -> None:
    assert latex.table([["", "a"], ["claimed", "b"]], [["c", "1"]]) == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & a \\",
        r"claimed & b \\",
        r"\midrule",
        r"c & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_what_stands_above_it() -> None:
    assert latex.preamble("What it is.", None) == ["% What it is.", r"% needs \usepackage{booktabs}"]
    assert latex.preamble("It", "NOT", needs="; more") == [
        "% It",
        r"% needs \usepackage{booktabs}; more",
        "% NOT",
    ]
