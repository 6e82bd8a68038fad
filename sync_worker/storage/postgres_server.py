"""The PostgreSQL server: its address, new connections, and errors without the password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sync_worker.errors import ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from sync_worker.domain.timings import Timings

Connection = psycopg.Connection[tuple[Any, ...]]


class Server:
    """The address of the server. Nothing else has the password."""

    def __init__(self, url: str, timings: Timings) -> None:
        try:
            parameters = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise _unreadable_address() from None  # the original text may quote the password
        ports = str(parameters.get("port") or "0").split(",")
        names = f"{parameters.get('host')}{parameters.get('dbname')}"
        if "@" in names or not all(
            port.isdigit() for port in ports
        ):  # part of the password was parsed as a host or port
            raise _unreadable_address()
        self._secret = str(parameters.get("password") or "")
        patience = {
            "connect_timeout": round(timings.postgres_connect_timeout),
            "keepalives_idle": round(timings.postgres_keepalive),
            "tcp_user_timeout": milliseconds(timings.postgres_tcp_timeout),
        }
        self._conninfo = make_conninfo(url, **{name: n for name, n in patience.items() if name not in parameters})

    def connect(self) -> Connection:
        """Return a new connection, or raise DatabaseUnavailable."""
        try:
            return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise self.unavailable(error) from None  # the original may quote the password

    def unavailable(self, error: psycopg.Error) -> DatabaseUnavailable:
        """Return the error for callers."""
        return DatabaseUnavailable(f"PostgreSQL: {self.describe(error)}.")

    def describe(self, error: psycopg.Error) -> str:
        """Return the first line of an error, without the password."""
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        return text.replace(self._secret, "***") if self._secret else text


def _unreadable_address() -> ConfigurationError:
    return ConfigurationError(
        "DATABASE_URL is not a PostgreSQL address. In the password, write @ as %40, / as %2F and % as %25."
    )


def milliseconds(seconds: float) -> int:
    """Return a duration as PostgreSQL takes it."""
    return round(seconds * 1000)
