"""`python -m benchmark.search`."""

from benchmark.cli.options import run_command
from benchmark.cli.search import command

if __name__ == "__main__":
    run_command(command)
