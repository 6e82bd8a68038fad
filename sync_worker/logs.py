"""How logs are written: event names are snake_case facts with key-values; JSON for machines, columns for people.

Why it exists: logs go to stderr, data to stdout, so that both can be piped. The libraries below us stay quiet: their
lines hold addresses and headers that have no place in a log. A line that cannot be written is lost, and nothing else.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


class _Patient:
    """A stream that may be on a full disk, or a pipe that nobody reads any more: no work is to fail for that."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, if that is possible."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError):
            self._stream.flush()


def configure_logs(form: Literal["auto", "json", "console"], *, level: int = logging.INFO) -> None:
    """Set up structlog for the process; `auto` is console on a terminal and JSON elsewhere."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    # Traces without the values of variables: a header with a key could be among them.
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _Patient(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    for name in ("httpx", "httpcore", "uvicorn.access", "svix"):
        logging.getLogger(name).setLevel(logging.WARNING)
