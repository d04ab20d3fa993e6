"""Where and with what a run was made."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmark.common import provenance
from benchmark.methods import METHODS

CODE = "import math\n\nclass Base:\n    step: int = 1\n    def go(self):\n        return HELP\n\nHELP = 1\n"


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_code_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explained = '"""A file."""\n' + CODE.replace(
        "1\n    def go(self):\n",
        '1\n    """A step."""\n\n    def go( self ):\n        """Goes."""  # really\n',
    )
    texts = {"code_a": CODE, "code_b": explained, "code_c": CODE.replace("HELP = 1", "HELP = 2")}
    found = [
        provenance.code_of([imported(tmp_path, monkeypatch, name, text).Base]) for name, text in texts.items()
    ]
    assert found[0] == found[1] != found[2]
    assert found[0].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}-")


def test_code_is_of_every_class_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (
        imported(tmp_path, monkeypatch, f"base_{number}", CODE + f"STEP = {number}\n").Base
        for number in (1, 2)
    )
    shared = imported(tmp_path, monkeypatch, "shared", CODE).Base
    assert provenance.code_of([shared, one]) != provenance.code_of([shared, other])
    assert provenance.code_of([shared, one]) == provenance.code_of([shared, one])


@pytest.mark.parametrize("text", ["class Base(: pass", "\0"])
def test_code_that_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    kind = imported(tmp_path, monkeypatch, "half_saved", CODE).Base
    (tmp_path / "half_saved.py").write_text(text)
    assert provenance.code_of([kind]) == ""


def test_a_class_in_no_file_has_no_code() -> None:
    namespace: dict[str, type] = {}
    exec("class Nowhere: pass", {"__name__": "nowhere"}, namespace)
    assert provenance.code_of([namespace["Nowhere"]]) == ""


def test_a_methods_code_is_that_of_the_rules_it_varies() -> None:
    codes = {method.code for method in METHODS.values()}
    assert len(codes) == len(METHODS)
    assert METHODS["FA"].code == provenance.code_of([METHODS["FA"], METHODS["BP"]])
