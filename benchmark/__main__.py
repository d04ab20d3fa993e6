"""`python -m benchmark`."""

import sys

from benchmark.errors import INTERRUPTED, UserError

if __name__ == "__main__":
    try:
        from benchmark.cli import main
    except UserError as error:  # a learning rule that cannot be imported
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # importing torch takes seconds
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    main()
