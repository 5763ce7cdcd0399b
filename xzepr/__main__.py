"""The entry point of the command `xzepr`."""

import sys

from xzepr.cli import assemble
from xzepr.core.errors import CannotStart


def main() -> None:
    """Runs the command line. If a command cannot start, prints the reason without a traceback and exits with code 1."""
    try:
        assemble(sys.argv[1:])(prog_name="xzepr")
    except CannotStart as error:
        print(f"xzepr: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
