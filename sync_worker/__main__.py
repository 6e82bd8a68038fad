"""The entry point of `sync-worker` and `python -m sync_worker`."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C ends it with one line and exit code 130, even while modules are imported."""
    try:
        from sync_worker import cli  # noqa: PLC0415 - so that Ctrl-C during the import is handled here

        cli.main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201 - this is the command line
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
