"""`python -m benchmark`, or `fwdtp`."""

import sys

from benchmark.common.errors import UserError, interrupted


def main() -> None:
    """Load the commands, which takes seconds, and run one."""
    try:
        from benchmark.cli.app import main
    except UserError as error:  # a learning rule that cannot be imported
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # importing torch takes seconds
        interrupted(130)
    main()


if __name__ == "__main__":
    main()
