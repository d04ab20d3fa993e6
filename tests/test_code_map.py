"""docs/code.md names every module, and sections import only from themselves and from below."""

import ast
import re

import pytest

from benchmark.config import PROJECT

PACKAGE = PROJECT / "benchmark"
SECTIONS = (PROJECT / "docs/code.md").read_text(encoding="utf-8").split("\n## ")[1:]


def named(section: str) -> list[str]:
    """The modules and packages in the first column of a section's table."""
    heads = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for head in heads for name in re.findall(r"`([\w.]+)/?`", head)]


FLOORS = {
    name.removesuffix(".py"): floor for floor, section in enumerate(SECTIONS) for name in named(section)
}


def test_every_module_is_named_once() -> None:
    listed = [name for section in SECTIONS for name in named(section)]
    modules = [file.name for file in PACKAGE.glob("*.py")]
    packages = [folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()]
    assert sorted(listed) == sorted([*modules, *packages])


def imported(name: str) -> set[str]:
    """The modules and packages of the project that one imports, anywhere in its code."""
    files = [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").is_file() else (PACKAGE / name).rglob("*.py")
    return {module for file in files for module in imports(file.read_text(encoding="utf-8"))}


def imports(code: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module.split(".")[1] for module in found if module.startswith("benchmark.")} & FLOORS.keys()


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_nothing_imports_from_above(name: str) -> None:
    above = {other for other in imported(name) if FLOORS[other] < FLOORS[name]}
    assert not above, f"{name} imports {sorted(above)} from above"


def test_imports_are_seen() -> None:
    assert imported("cells") == {"config", "results", "statistics", "stored_run", "sweep"}
    assert {"cells", "sweep"} <= imported("report")
    assert imports("def f():\n    import benchmark.cells as c, torch") == {"cells"}
    assert imports("from benchmark import cells, errors") == {"cells", "errors"}
