"""`python -m benchmark.sensitivity`."""

from benchmark.cli.options import run_command
from benchmark.cli.sensitivity import command

if __name__ == "__main__":
    run_command(command)
