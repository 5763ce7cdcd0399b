"""The entry point of the command `xzepr`."""

import sys

_INTERRUPTED = 130
_SERVERS = ("serve", "work")  # their output is a log, which is written until they stop


def main() -> None:
    """Runs the command line and exits. What goes wrong is one sentence on standard error, without a traceback."""
    try:
        from xzepr.cli import boundary
        from xzepr.core.errors import CannotStart
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    arguments = sys.argv[1:]
    try:
        if not set(arguments[:1]) & set(_SERVERS):
            boundary.open_standard_streams()
        boundary.check_arguments(arguments)
        try:
            from xzepr.cli import assemble

            assemble(arguments)(prog_name="xzepr")
        finally:
            if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - it is None if it was closed
                sys.stdout.flush()
    except CannotStart as error:
        print(f"xzepr: {error}", file=sys.stderr)  # noqa: T201
        # 1 and 2 are outcomes of `gates wait`.
        sys.exit(3 if arguments[:2] == ["gates", "wait"] else 1)
    except boundary.OutputFailed as error:
        if not error.reader_ended:
            print(f"xzepr: the command ended, but its output cannot be written: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(boundary.OUTPUT_FAILED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
