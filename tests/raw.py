"""HTTP by hand over a real socket, for what no client would send."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True)
class Answer:
    """One answer. Status 0: the connection ended, or nothing came in time."""

    status: int
    body: bytes = b""
    head: bytes = b""


@dataclass(frozen=True)
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send piece by piece; the other side may have hung up, which is an answer too."""
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                if pause:
                    await asyncio.sleep(pause)
        except ConnectionError:
            pass

    async def answer(self, seconds: float = 5.0) -> Answer:
        """Read one answer, by its content-length."""
        try:
            async with asyncio.timeout(seconds):
                head = await self.reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(i.split(b":")[1]) for i in lines if i.startswith(b"content-length:")), 0)
                return Answer(int(head.split(b" ")[1]), await self.reader.readexactly(length), head)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            return Answer(0)

    async def closed(self, seconds: float = 5.0) -> bool:
        """Return whether the other side hangs up in time, whatever it says before."""
        try:
            async with asyncio.timeout(seconds):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def connected(port: int, sent: bytes = b"") -> AsyncIterator[Line]:
    """Connect. What is `sent` at once has arrived when the server, which runs in our own loop, hears of the client."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(sent)
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()
