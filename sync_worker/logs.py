"""How logs are written: event names are snake_case facts with key-values; JSON for machines, columns for people.

Why it exists: logs go to stderr, data to stdout, so that both can be piped. What libraries have to say goes the same
way, as the event `library_warned`, and so does a crash. No secret and no e-mail address leaves here, wherever in a line
it stands. A line that cannot be written is lost, and nothing else is. `docs/logs.md` lists the events.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import structlog

from sync_worker.redaction import SECRET, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

SHORTEST_SECRET = 8
"""Characters. What is shorter would be found in words."""

log = structlog.get_logger("logs")


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


class Cleaner:
    """A processor that takes secrets and addresses out of every text of a line: by their shape, and what is `known`."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = tuple(sorted({text for text in known if len(text) >= SHORTEST_SECRET}, key=len, reverse=True))

    def __call__(self, _: object, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Return the line as it may be written."""
        return {self._text(key): self._clean(value) for key, value in line.items()}

    def _clean(self, value: object) -> object:
        match value:
            case str():
                return self._text(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                return {self._text(str(key)): self._clean(inner) for key, inner in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean(inner) for inner in value]
            case _:
                return self._text(repr(value))

    def _text(self, text: str) -> str:
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, SECRET)
        return redact(text)


class _Forward(logging.Handler):
    """Takes what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it as one of our lines."""
        log.log(
            logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING,
            "library_warned",
            library=record.name,
            message=record.getMessage().strip(),
            exc_info=record.exc_info,
        )


def configure_logs(form: Literal["auto", "json", "console"], secrets: Iterable[str] = ()) -> None:
    """Set up the logs of the process; `auto` is console on a terminal and JSON elsewhere. `secrets` never occur."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Traces without the values of variables: a header with a key could be among them.
            structlog.processors.format_exc_info,
            Cleaner(secrets),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if console
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _Patient(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)


def tell_of_crash(error: Exception) -> None:
    """Log what ends the process, whenever that happens: perhaps nothing was set up yet."""
    if not structlog.is_configured():
        configure_logs("auto")
    log.critical("crashed", exc_info=error, next_step="this is a bug in sync-worker: please report it with the trace")
