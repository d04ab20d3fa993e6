"""The examples and commands of the README and of docs/ work, and links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.config import PROJECT
from tests.helpers.commands import PLAN

FILES = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md"))]
DOCS = "\n".join(file.read_text(encoding="utf-8") for file in FILES)


def example(file: str) -> str:
    """The code block behind `<!-- example: file -->`."""
    found = re.findall(rf"<!-- example: {re.escape(file)} -->\n```\w+\n(.*?)```", DOCS, re.DOTALL)
    assert len(found) == 1, f"{len(found)} examples for {file}"
    return str(found[0])


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, env=environment
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project that an example may change."""
    for folder in ("benchmark", "paper_configs", "tests/reference_traces"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def test_adding_a_method(project: Path) -> None:
    files = (
        "benchmark/methods/sign_symmetry.py",
        "paper_configs/mine.yaml",
        "paper_configs/mine-search.yaml",
    )
    for file in files:
        (project / file).write_text(example(file))
    result = run('python -m benchmark check "Sign symmetry"', project)
    assert result.returncode == 0, result.stdout
    command = 'python -m benchmark run mine --report --method "Sign symmetry,BP" --epochs 2'
    assert "python -m benchmark run mine --report" in DOCS
    result = run(command, project)
    assert result.returncode == 0, result.stderr
    table = (project / "results/mine/tables/mine-2-epochs.csv").read_text()
    line = next(line for line in table.splitlines() if line.startswith("Sign symmetry"))
    error = float(line.split(",")[6])
    assert 15 < error < 60, line
    (command,) = re.findall(
        r"^(python -m benchmark report differences --plan mine .*?) +#", DOCS, re.MULTILINE
    )
    result = run(f"{command} --epochs 2", project)
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in line.split("│")[1:3]] == ["[Sign symmetry]", "BP"]
    (command,) = re.findall(r"^python -m benchmark\.search --plan mine .*", DOCS, re.MULTILINE)
    result = run(command, project)
    assert result.returncode == 0, result.stderr
    patch = project / "results/mine/search/fashion-mnist-mini/sign-symmetry.patch"
    assert "source: search" in patch.read_text()


@pytest.mark.parametrize(
    ("method", "file", "more"),
    [("DFA", "dfa.py", ""), ("Kolen-Pollack", "kolen_pollack.py", "momentum: 0.5, weight_decay: 1.e-3, ")],
)
def test_a_method_with_a_state(method: str, file: str, more: str, project: Path) -> None:
    (project / "benchmark/methods" / file).write_text(example(f"benchmark/methods/{file}"))
    plan = example("paper_configs/mine.yaml").replace("Sign symmetry", method)
    (project / "paper_configs/mine.yaml").write_text(plan.replace("{lr: 0.1, ", f"{{lr: 0.1, {more}"))
    result = run(f"python -m benchmark run mine --report --method {method} --epochs 2", project)
    assert result.returncode == 0, result.stderr
    table = (project / "results/mine/tables/mine-2-epochs.csv").read_text()
    error = float(next(line for line in table.splitlines() if line.startswith(method)).split(",")[6])
    assert 15 < error < 60, error


def test_adding_a_data_set(project: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for number, kind in enumerate(("daisy", "rose")):
            folder = project / "DATA/flowers" / split / kind
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (20, 16, 3)) + 127 * number
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg")
    with open(project / "paper_configs/datasets.yaml", "a") as catalogue:
        catalogue.write(example("paper_configs/datasets.yaml"))
    (project / "paper_configs/flowers.yaml").write_text(example("paper_configs/flowers.yaml"))
    (command,) = re.findall(r"^python -m benchmark run flowers .*", DOCS, re.MULTILINE)
    result = run(command, project)
    assert result.returncode == 0, result.stderr
    assert run("python -m benchmark report all --plan flowers", project).returncode == 0
    table = (project / "results/flowers/tables/flowers.csv").read_text().splitlines()
    assert float(next(line for line in table if line.startswith("BP,")).split(",")[6]) <= 50


def test_seeds_as_jobs(project: Path) -> None:
    """With another plan of that name: its seeds, four at a time, then its table."""
    (project / "DATA").mkdir()
    (project / "paper_configs/table2.yaml").write_text(PLAN)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    there = {**os.environ, "PATH": path, "PYTHONPATH": str(project)}
    script = ["sh", "-ec", example("jobs.sh")]
    result = subprocess.run(script, cwd=project, capture_output=True, text=True, env=there)
    assert result.returncode == 0, result.stderr
    assert len((project / "jobs.txt").read_text().splitlines()) == 4
    table = (project / "results/tables/table2.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["BP", "FA"]
    assert {line.split(",")[4] for line in table[1:]} == {"2"}


NARROWED = {
    "python -m benchmark replay": "",
    'python -m benchmark check "Sign symmetry"': "--help",  # test_adding_a_method
    "python -m benchmark check": "",
    "python -m benchmark plan table2 --data-root": "--help",  # test_seeds_as_jobs
    "python -m benchmark plan": "--method BP --dataset mnist --seeds 1",
    "python -m benchmark run table2": "--help",  # needs the real data
    "python -m benchmark run mine": "--help",  # test_adding_a_method
    "python -m benchmark run flowers": "--help",  # test_adding_a_data_set
    "python -m benchmark campaign": "--help",  # needs the real data
    "python -m benchmark status": "",
    "python -m benchmark report differences --plan mine": "--help",  # test_adding_a_method
    "python -m benchmark report": "",
    "python -m benchmark verify": "",
    "python -m benchmark rerun": "--help",  # needs the real data
    "python -m benchmark.search": "--help",  # likewise
    "python -m benchmark.sensitivity --dataset": "--help",  # needs the real data
    "python -m benchmark.sensitivity": "--trials 2 --epochs 1",
    "python -m benchmark.timing": "--seconds 0",
}
"""What a command of README or docs/ gets in addition here, so that it ends within seconds."""


COMMANDS = {command.strip() for command in re.findall(r"python -m benchmark[^\n`#>]*", DOCS)}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_commands_run(command: str, project: Path) -> None:
    extra = next((NARROWED[known] for known in NARROWED if command.startswith(known)), None)
    assert extra is not None, f"no way to try {command!r}"
    words = command.replace("*.npz", "dtp.npz")
    result = run(f"{words} {extra}", project)
    assert result.returncode == 0, result.stderr


PAGES = ["README.md", *(f"{d}/{f.name}" for d in ("docs", "results") for f in PROJECT.glob(f"{d}/*.md"))]


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("file", PAGES)
def test_links_lead_to_files(file: str) -> None:
    text = (PROJECT / file).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (PROJECT / file).parent / path if path else PROJECT / file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link
    assert file != "README.md" or len(links) >= 4
