"""`python -m benchmark.timing`."""

from benchmark.cli.options import run_command
from benchmark.cli.timing import command

if __name__ == "__main__":
    run_command(command)
