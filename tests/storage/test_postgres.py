"""What only PostgreSQL has: a server that goes away, sessions that must stay clean, notifications."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import psycopg
import pytest

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage import postgres, postgres_server
from sync_worker.storage.postgres import PostgresDatabase
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import Completed, WorkItem
from tests.clock import TIMINGS
from tests.oracle import GUARD
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Transaction

pytestmark = pytest.mark.anyio

APPEND = "UPDATE state SET value = value || ? WHERE name = ?"
PUT = "INSERT INTO state (name, value, at) VALUES (?, '', 0)"

BACKENDS = "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@asynccontextmanager
async def opened(url: str, *, watch: bool = False, timings: Timings = TIMINGS) -> AsyncIterator[PostgresDatabase]:
    db = PostgresDatabase(url, None, timings, watch=watch)
    await db.start()
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def put(db: PostgresDatabase, name: str) -> None:
    await db.run(lambda tx: tx.execute(PUT, (name,)))


async def names(db: PostgresDatabase) -> set[str]:
    return {row[0] for row in await db.read(lambda tx: tx.execute("SELECT name FROM state"))}


def notify(tx: Transaction) -> None:
    tx.notify()


def terminate(url: str, where: str = "true") -> int:
    """End sessions of the database as an operator would; return how many."""
    with psycopg.connect(url, autocommit=True) as admin:
        return len(admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS b WHERE {where}").fetchall())


async def until_listening(db: PostgresDatabase, is_listening: bool = True) -> None:
    """Wait until the listener listens, or no longer does."""
    async with asyncio.timeout(GUARD):
        while db._listener is None or db._listener.is_listening is not is_listening:
            await asyncio.sleep(0.01)


async def test_sessions_that_the_server_ended_are_replaced_without_an_error(postgres_url: str) -> None:
    many = TIMINGS.postgres_tries * 2
    meeting = threading.Barrier(many)
    db = PostgresDatabase(postgres_url, None, TIMINGS, connections=many)
    await db.start()
    await asyncio.gather(*(db.run(lambda _: meeting.wait(GUARD)) for _ in range(many)))
    assert terminate(postgres_url) == many
    await put(db, "after")
    assert await names(db) == {"after"}
    await db.close()


async def test_a_server_that_is_restarted_is_found_again_without_a_restart_of_ours(server: PostgresServer) -> None:
    async with opened(server.url, watch=True) as db:
        await put(db, "before")
        server.stop()
        with pytest.raises(DatabaseUnavailable, match="PostgreSQL"):
            await put(db, "during")
        with pytest.raises(DatabaseUnavailable):
            await names(db)
        server.start()
        await put(db, "after")
        assert await names(db) == {"before", "after"}
        await until_listening(db)


async def test_a_server_that_is_down_at_the_start_is_unavailable(server: PostgresServer) -> None:
    server.stop()
    with pytest.raises(DatabaseUnavailable, match="PostgreSQL"):
        await PostgresDatabase(server.url, None, TIMINGS).start()


async def test_trouble_never_shows_the_password(server: PostgresServer) -> None:
    db = PostgresDatabase(server.url.replace("postgres@/postgres", "postgres:hunter2@/hunter2"), None, TIMINGS)
    with pytest.raises(DatabaseUnavailable, match=r'database "\*\*\*" does not exist') as caught:
        await db.start()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_transaction_that_loses_its_session_half_way_is_run_again(postgres_url: str) -> None:
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        tx.execute(PUT, (f"{len(runs)}",))
        runs.append(1)
        if len(runs) == 1:
            terminate(postgres_url)
        tx.execute("SELECT 1")

    async with opened(postgres_url) as db:
        await db.run(work)
        assert await names(db) == {"1"}
    assert len(runs) == 2


async def test_of_two_transactions_in_a_deadlock_both_succeed(postgres_url: str) -> None:
    meeting = threading.Barrier(2)
    runs: list[str] = []

    def crosswise(first: str, second: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            runs.append(first)
            tx.execute(APPEND, (first, first))
            if len(runs) <= 2:
                meeting.wait(GUARD)
            tx.execute(APPEND, (first, second))

        return work

    async with opened(postgres_url) as db:
        await put(db, "a")
        await put(db, "b")
        await asyncio.gather(db.run(crosswise("a", "b")), db.run(crosswise("b", "a")))
        values = await db.read(lambda tx: tx.execute("SELECT value FROM state ORDER BY name"))
    assert [sorted(value) for (value,) in values] == [["a", "b"], ["a", "b"]]
    assert len(runs) >= 3


async def test_transactions_on_the_same_subjects_in_any_order_never_deadlock(postgres_url: str) -> None:
    keys = [f"user:user_{n}" for n in range(30)]

    async def enqueue(queue: WorkQueue, random: Random) -> None:
        await queue.enqueue([WorkItem(key) for key in random.sample(keys, len(keys))])

    async def renew_and_complete(queue: WorkQueue, random: Random) -> None:
        claims = await queue.claim(0, len(keys), 30)
        await queue.next_due()  # let the others go on meanwhile
        await queue.renew(random.sample(claims, len(claims)), 30)
        await queue.complete([Completed(claim) for claim in random.sample(claims, len(claims))])

    async with opened(postgres_url) as db:
        queue = WorkQueue(db, TIMINGS)
        for seed in range(15):
            random = Random(seed)
            await asyncio.gather(renew_and_complete(queue, random), *(enqueue(queue, random) for _ in range(6)))
    with psycopg.connect(postgres_url) as admin:  # the sessions above have ended, and so reported their numbers
        question = b"SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert admin.execute(question).fetchone() == (0,)


async def test_a_row_that_stays_locked_is_not_waited_for_for_ever(postgres_url: str) -> None:
    async with opened(postgres_url, timings=replace(TIMINGS, postgres_lock_timeout=0.05)) as db:
        await put(db, "a")
        with psycopg.connect(postgres_url) as other:
            other.execute("UPDATE state SET value = 'mine'")
            with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                await db.run(lambda tx: tx.execute(APPEND, ("ours", "a")))
        await db.run(lambda tx: tx.execute(APPEND, ("ours", "a")))


async def test_a_process_that_hangs_in_a_transaction_loses_it(postgres_url: str) -> None:
    ended = f"SELECT COUNT(*) FROM ({BACKENDS}) AS b"

    def hang(tx: Transaction) -> None:
        tx.execute(PUT, ("a",))
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            deadline = time.monotonic() + GUARD
            while admin.execute(ended.encode()).fetchone() != (0,):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        tx.execute("SELECT 1")

    async with opened(postgres_url, timings=replace(TIMINGS, postgres_idle_timeout=1.0)) as db:
        db._idle.pop().close()
        with pytest.raises(DatabaseUnavailable):
            await db.run(hang)
        assert await names(db) == set()


async def test_transactions_leave_nothing_in_the_session(postgres_url: str) -> None:
    def look(tx: Transaction) -> list[tuple[object, ...]]:
        prepared = tx.execute("SELECT COUNT(*) FROM pg_prepared_statements")
        changed = tx.execute(
            "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction_%%' "
            "AND name NOT IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')"
        )
        return prepared + changed

    async with opened(postgres_url) as db:
        for n in range(20):
            await put(db, f"{n}")
        assert await db.run(look) == [(0,)]
        connection = db._idle[0]
        for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == ("0",)


async def test_a_read_only_replica_is_unavailable_and_left(postgres_url: str) -> None:
    async with opened(postgres_url) as db:
        db._idle[0].execute(b"SET default_transaction_read_only = on")
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            await put(db, "a")
        await put(db, "a")


@pytest.mark.parametrize("change", ["ALTER TABLE state RENAME COLUMN value TO text", "DROP TABLE state"])
async def test_tables_that_a_newer_release_changed_are_trouble_that_may_pass(postgres_url: str, change: str) -> None:
    async with opened(postgres_url) as db:
        await db.run(lambda tx: tx.execute(change))
        with pytest.raises(DatabaseUnavailable, match="does not exist"):
            await put(db, "a")


async def test_a_listener_that_lost_its_session_listens_again_and_reports_what_it_may_have_missed(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, watch=True) as watching, opened(postgres_url) as other:
        await until_listening(watching)
        assert await watching.changed(GUARD)  # that listening has begun
        assert terminate(postgres_url, "query LIKE 'LISTEN%'") == 1
        await until_listening(watching, is_listening=False)
        await until_listening(watching)
        assert await watching.changed(GUARD)
        await other.run(notify)
        assert await watching.changed(GUARD)


async def test_while_the_listener_is_disconnected_the_wait_is_short(server: PostgresServer) -> None:
    async with opened(server.url, watch=True) as db:
        await until_listening(db)
        assert await db.changed(GUARD)  # that listening has begun
        server.stop()
        await until_listening(db, is_listening=False)
        async with asyncio.timeout(GUARD):
            assert not await db.changed(600)


async def test_only_a_watcher_has_a_connection_for_notifications(postgres_url: str) -> None:
    listening = f"SELECT COUNT(*) FROM ({BACKENDS}) AS b WHERE query LIKE 'LISTEN%%'"
    async with opened(postgres_url) as db:
        assert await db.read(lambda tx: tx.execute(listening)) == [(0,)]
        async with opened(postgres_url, watch=True) as watching:
            await until_listening(watching)
            assert await db.read(lambda tx: tx.execute(listening)) == [(1,)]


async def test_a_server_that_does_not_answer_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgres://user@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=3"
        listener = postgres.Listener(postgres_server.Server(url, TIMINGS), "token", lambda: None, TIMINGS)
        connection, _ = silent.accept()
        begin = time.monotonic()
        listener.stop()
        assert time.monotonic() - begin < 2
        connection.close()
        listener._thread.join(GUARD)
        assert not listener._thread.is_alive()


async def test_no_more_connections_are_used_than_allowed(postgres_url: str) -> None:
    db = PostgresDatabase(postgres_url, None, TIMINGS, connections=2)
    await db.start()
    await asyncio.gather(*(put(db, f"{n}") for n in range(50)))
    with psycopg.connect(postgres_url) as admin:
        assert len(admin.execute(BACKENDS.encode()).fetchall()) <= 2
    await db.close()
