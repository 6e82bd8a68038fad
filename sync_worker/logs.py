"""Configures structured logs on stderr, as JSON or for a console. `docs/logs.md` lists the events.

Warnings of libraries are logged as `library_warned`. Secrets and e-mail addresses are redacted everywhere in a line. A
line that cannot be written is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import structlog

from sync_worker.formatting import printable
from sync_worker.redaction import SECRET, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

MIN_SECRET_LENGTH = 8
"""In characters. A shorter one could occur in ordinary words."""

log = structlog.get_logger("logs")


class _SafeStream:
    """A stream that ignores write errors: a full disk or a closed pipe must not fail any work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or drop the text if that fails."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or ignore that it fails."""
        with suppress(OSError):
            self._stream.flush()


class Redactor:
    """A processor that redacts the `known` secrets, and whatever looks like a secret or an address, in a whole line."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = tuple(sorted({text for text in known if len(text) >= MIN_SECRET_LENGTH}, key=len, reverse=True))

    def __call__(self, _: object, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Return the line redacted."""
        return {self._text(key): self._redact(value) for key, value in line.items()}

    def _redact(self, value: object) -> object:
        match value:
            case str():
                return self._text(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                return {self._text(str(key)): self._redact(inner) for key, inner in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._redact(inner) for inner in value]
            case _:
                return self._text(repr(value))

    def _text(self, text: str) -> str:
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, SECRET)
        return redact(text)


def _escape(_: object, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape control characters for a console; the renderer escapes those inside lists and objects itself."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in line.items()}


class _Forward(logging.Handler):
    """Forwards the log records of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as `library_warned`. A request that was cancelled, because the process stops, is no error."""
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return
        log.log(
            logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING,
            "library_warned",
            library=record.name,
            message=record.getMessage().strip(),
            exc_info=record.exc_info,
        )


def configure_logs(form: Literal["auto", "json", "console"], secrets: Iterable[str] = ()) -> None:
    """Configure the logs of this process; `auto` is console on a terminal and JSON elsewhere. Redacts `secrets`."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Tracebacks without local variables, which could include a header with a key.
            structlog.processors.format_exc_info,
            Redactor(secrets),
            *(
                (_escape, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
                if console
                else (structlog.processors.JSONRenderer(),)
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _SafeStream(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)


def log_crash(error: Exception) -> None:
    """Log the exception that ends the process, even if logging was not configured yet."""
    if not structlog.is_configured():
        configure_logs("auto")
    log.critical("crashed", exc_info=error, next_step="this is a bug in sync-worker; report it with the traceback")
