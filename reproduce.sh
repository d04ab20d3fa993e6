#!/usr/bin/env bash
# Rebuilds what the paper shows: ./reproduce.sh TARGET [options passed on].
set -euo pipefail
calling_folder=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
project=$PWD

targets() {
    cat <<'TEXT'
usage: ./reproduce.sh TARGET [options]
  quick    everything below on a small data set that ships with the project: tables, figures, claims, page
  table1   train what is missing of Table 1's measurements and rebuild it
  table2   train what is missing of Table 2 and rebuild it beside the paper's numbers
  table3   time each method on this device, once, and rebuild Table 3
  figure2  train what is missing of Figure 2, the Jacobian conditions, and draw it
  figure3  train what is missing of Figure 3, hyperparameter sensitivity, and draw it
  all      all of these, the claims, and figures/report.html (--open shows it)
  status   what is stored, missing, partial or stale
  test     run the tests
options go to the command behind the target; ./reproduce.sh table2 --help lists them
TEXT
}

fail() {
    echo "reproduce.sh: $1" >&2
    exit "${2:-1}"
}

if [ $# -eq 0 ]; then
    targets
    exit 0
fi
target=$1
shift
case $target in
    quick | table1 | table2 | table3 | figure2 | figure3 | all | status | test) ;;
    -h | --help | help) targets && exit 0 ;;
    *) fail "unknown target '$target', allowed: quick table1 table2 table3 figure2 figure3 all status test" 2 ;;
esac

unset PYTHONPATH # may lead to the package of another clone
has_package() {
    "$1" -P -c 'import sys, benchmark, torch, torchvision, typer; from pathlib import Path
sys.exit(Path(benchmark.__file__).resolve().parent.parent != Path(sys.argv[1]).resolve())' "$PWD" 2>/dev/null
}

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && has_package python; then
    python=python
elif [ -f .venv/.installed ] && cmp -s .venv/.installed pyproject.toml && has_package .venv/bin/python; then
    python=$project/.venv/bin/python
else
    base=${PYTHON:-python3}
    command -v "$base" >/dev/null || fail "Python 3.11 or newer is needed, '$base' was not found (name another with PYTHON=...)"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed, $("$base" -V 2>&1) found (name another with PYTHON=...)"
    echo "installing into .venv (PyTorch is several GB, some minutes)" >&2
    pins=(-c constraints.txt)
    [ -z "${REPRODUCE_UNPINNED:-}" ] || pins=()
    "$base" -m venv .venv || fail "$base -m venv .venv failed (on Debian: apt install python3-venv)"
    .venv/bin/python -m pip install --progress-bar on ${pins[@]+"${pins[@]}"} -e '.[dev]' >&2 ||
        fail "the installation failed, see above; REPRODUCE_UNPINNED=1 takes the newest versions instead of constraints.txt"
    cp pyproject.toml .venv/.installed
    python=$project/.venv/bin/python
fi

if [ "$target" = test ]; then
    # One process a core, each with one thread: more threads than cores make all of them slow.
    export OMP_NUM_THREADS=1
    exec "$python" -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal "$@"
fi
cd "$calling_folder" # paths among the options are meant from there
export PYTHONSAFEPATH=1 # and no package of another clone that lies there
case $target in
    quick) exec "$python" -m benchmark reproduce quick "$@" ;;
    all) exec "$python" -m benchmark reproduce paper "$@" ;;
    table1 | figure2) exec "$python" -m benchmark run table2 --for "$target" "$@" ;;
    table2) exec "$python" -m benchmark run table2 --report "$@" ;;
    table3) exec "$python" -m benchmark.timing --table3 "$@" ;;
    figure3) exec "$python" -m benchmark.sensitivity "$@" ;;
    status) exec "$python" -m benchmark status "$@" ;;
esac
