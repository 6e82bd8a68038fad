"""Progress of commands that compare or write many subjects."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Self

from sync_worker.cli.output import echo

REPAIRED = "repaired"
"""What a reconcile calls the subjects that it is done with."""


class Bars:
    """Progress bars with rate and time left on a terminal; nothing elsewhere. After Ctrl-C they say how far it got."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._counts: dict[str, tuple[int, int]] = {}
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
            from rich.text import Text

            class Rate(TextColumn):
                def render(self, task: Task) -> Text:
                    """Show the steps per second once there are two."""
                    return Text(f"{task.speed:.0f}/s" if task.speed else "")

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                Rate(""),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            echo(self._so_far(), err=True)

    def _so_far(self) -> str:
        done, of = self._counts.get(REPAIRED, (0, 0))
        if not of:
            return "Nothing was written to Clerk."
        return f"{done} of {of} subjects are done. {of - done} are not: run the command again to go on."

    def __call__(self, what: str, done: int, of: int) -> None:
        """Show the progress of `what`; `of` is 0 while the total is unknown."""
        self._counts[what] = (done, of)
        if self._bars is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=of or None)
        self._bars.update(self._tasks[what], completed=done)
