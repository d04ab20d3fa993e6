"""`reproduce.sh`: its targets and how it fails; nothing is installed."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.config import PROJECT

TARGETS = ("quick", "table1", "table2", "table3", "figure2", "figure3", "all", "status", "test")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script alone in a folder whose name has a blank."""
    folder = tmp_path / "a project"
    folder.mkdir()
    shutil.copy(PROJECT / "reproduce.sh", folder)
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder / "reproduce.sh"


def call(script: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    hidden = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHON", "REPRODUCE_UNPINNED", "PYTHONPATH"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        ["bash", script, *arguments],
        capture_output=True,
        text=True,
        env={**env, **more},
        cwd=script.parent.parent,
        timeout=30,
    )


def stub(folder: Path, text: str) -> str:
    file = folder / "stub-python"
    file.write_text(f"#!/usr/bin/env bash\n{text}\n")
    file.chmod(0o755)
    return str(file)


# -c: the version is fine;  -m venv: a folder whose python runs this stub.
MAKES_VENV = """
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip "*) echo "pip: $*"; PIP ;;
    "-m "*) echo "ran: $*"; echo "in: $PWD${PYTHONSAFEPATH:+, from the installation}" ;;
    "-V") echo Python 3.11.0 ;;
esac
"""


def test_without_a_target_it_lists_them(copy: Path) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        done = call(copy, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == [*TARGETS]
    assert sorted(path.name for path in copy.parent.iterdir()) == ["pyproject.toml", "reproduce.sh"]


@pytest.mark.parametrize("target", ["tabel2", "", "--bogus", "*"])
def test_targets_it_does_not_have(copy: Path, target: str) -> None:
    done = call(copy, target, "--more")
    assert done.returncode == 2
    assert f"unknown target '{target}'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert all(name in done.stderr for name in TARGETS)


def test_missing_python(copy: Path) -> None:
    done = call(copy, "quick", PYTHON="no-such-python")
    assert done.returncode == 1
    assert "'no-such-python' was not found" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (copy.parent / ".venv").exists()


def test_old_python(copy: Path, tmp_path: Path) -> None:
    old = stub(tmp_path, '[ "$1" = -V ] && echo "Python 3.8.1" && exit 0\nexit 1')
    done = call(copy, "status", PYTHON=old)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, Python 3.8.1 found" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (copy.parent / ".venv").exists()


def test_failed_venv(copy: Path, tmp_path: Path) -> None:
    done = call(copy, "status", PYTHON=stub(tmp_path, '[ "$1" != -m ]'))
    assert done.returncode == 1
    assert "-m venv .venv failed" in done.stderr.splitlines()[-1]


def test_failed_installation_is_tried_again(copy: Path, tmp_path: Path) -> None:
    broken = stub(tmp_path, MAKES_VENV.replace("PIP", "exit 1"))
    for _ in range(2):
        done = call(copy, "quick", PYTHON=broken)
        assert done.returncode == 1
        assert "the installation failed" in done.stderr.splitlines()[-1]
        assert "pip: -m pip install" in done.stderr
        assert "-c constraints.txt" in done.stderr
        assert "ran:" not in done.stdout
        assert not (copy.parent / ".venv" / ".installed").exists()
    done = call(copy, "quick", PYTHON=broken, REPRODUCE_UNPINNED="1")
    assert "constraints.txt -e" not in done.stderr


def test_installs_once_and_passes_options_on(copy: Path, tmp_path: Path) -> None:
    python = stub(tmp_path, MAKES_VENV.replace("PIP", "exit 0"))
    done = call(copy, "quick", "--results", "a b", PYTHON=python)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["ran: -m benchmark reproduce quick --results a b", f"in: {tmp_path}, from the installation"],
    )
    for target, ran, where in (
        ("all", "-m benchmark reproduce paper", tmp_path),
        ("table1", "-m benchmark run table2 --for table1", tmp_path),
        ("table2", "-m benchmark run table2 --report", tmp_path),
        ("table3", "-m benchmark.timing --table3", tmp_path),
        ("figure2", "-m benchmark run table2 --for figure2", tmp_path),
        ("figure3", "-m benchmark.sensitivity", tmp_path),
        ("status", "-m benchmark status", tmp_path),
        ("test", "-m pytest --numprocesses auto --maxprocesses 8 --dist worksteal", copy.parent),
    ):
        done = call(copy, target, PYTHON="not needed any more")
        assert (done.returncode, done.stderr) == (0, "")
        installation = "" if target == "test" else ", from the installation"
        assert done.stdout.splitlines() == [f"ran: {ran}", f"in: {where}{installation}"]
    with open(copy.parent / "pyproject.toml", "a") as stream:
        stream.write("# other dependencies\n")
    assert "pip: -m pip install" in call(copy, "status", PYTHON=python).stderr


@pytest.mark.parametrize("theirs", [False, True])
def test_an_active_environment_of_another_clone_is_not_taken(
    copy: Path, tmp_path: Path, theirs: bool
) -> None:
    """Though the folder itself, were it on the path, would pass for what is installed."""
    (copy.parent / "benchmark").mkdir()
    (copy.parent / "benchmark" / "__init__.py").touch()
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("torch", "torchvision", "typer"):
        (packages / f"{name}.py").touch()
    if not theirs:  # then it is this clone's
        (packages / "benchmark").symlink_to(copy.parent / "benchmark")
    active = tmp_path / "other" / "bin"
    active.mkdir(parents=True)
    start = f"import sys; sys.path.append({str(packages)!r}); "
    (active / "python").write_text(
        f"""#!/usr/bin/env bash
case "$1 $2" in
    "-P -c") exec {sys.executable} -S -P -c {shlex.quote(start)}"$3" "${{@:4}}" ;;
    "-c "*) exec {sys.executable} -S -c {shlex.quote(start)}"$2" "${{@:3}}" ;;
    *) echo "active ran: $*" ;;
esac
"""
    )
    (active / "python").chmod(0o755)
    path = f"{active}:{os.environ['PATH']}"
    python = stub(tmp_path, MAKES_VENV.replace("PIP", "exit 0"))
    done = call(copy, "status", PATH=path, VIRTUAL_ENV=str(active.parent), PYTHON=python)
    assert done.stdout.splitlines()[0] == f"{'ran' if theirs else 'active ran'}: -m benchmark status"
    assert ("installing into .venv" in done.stderr) == theirs


def test_a_path_to_another_package_is_not_followed(copy: Path, tmp_path: Path) -> None:
    python = stub(tmp_path, MAKES_VENV.replace("PIP", "exit 0").replace("in: $PWD", "in: $PYTHONPATH"))
    done = call(copy, "status", PYTHON=python, PYTHONPATH=str(tmp_path))
    assert done.stdout.splitlines()[1] == "in: , from the installation"
