"""Where and with what a run was made."""

import importlib
import sys
from pathlib import Path

import pytest

from benchmark import provenance
from benchmark.methods import METHODS

CODE = "import math\n\nclass Base:\n    def step(self):\n        return HELP\n\nHELP = 1\n"


def code_of(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    return provenance.code_of(importlib.import_module(name).Base)


def test_code_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explained = '"""A file."""\n' + CODE.replace(
        "    def step(self):\n",
        '    """A class."""\n\n    def step( self ):\n        """A step."""  # really\n',
    )
    texts = {"code_a": CODE, "code_b": explained, "code_c": CODE.replace("HELP = 1", "HELP = 2")}
    found = [code_of(tmp_path, monkeypatch, name, text) for name, text in texts.items()]
    assert found[0] == found[1] != found[2]
    for name in texts:
        del sys.modules[name]


def test_code_is_that_of_the_bases_too() -> None:
    codes = {provenance.code_of(method) for method in METHODS.values()}
    assert len(codes) == len(METHODS)
    kind = type("Made", (METHODS["BP"],), {})
    assert provenance.code_of(kind) != provenance.code_of(METHODS["BP"])  # this file counts


def test_a_class_in_no_file_has_no_code() -> None:
    namespace: dict[str, type] = {}
    exec("class Nowhere: pass", {"__name__": "nowhere"}, namespace)
    assert provenance.code_of(namespace["Nowhere"]) == ""
