"""`demo`: plays one story on local services: edits in Sanity, and the access in Clerk after each of them."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sync_worker import DOCUMENTATION
from sync_worker.cli.output import CommandFailed
from sync_worker.formatting import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.sandbox.server import Sandbox

PATIENCE = 15.0
"""Seconds until a step counts as failed."""
ADA, BEN = "user_ada", "user_ben"
NOTHING: dict[str, object] = {}


@dataclass(frozen=True)
class Step:
    """One edit, and the access that Clerk must have after it."""

    title: str
    mutations: Sequence[Mapping[str, Any]]
    access: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def demo() -> None:
    """Show how edits in Sanity change access in Clerk. Needs no account.

    Runs the real worker against a local Content Lake and a local Clerk: grant, merge, rename, downgrade, move, delete.

    Example: sync-worker demo
    """
    from sync_worker.sandbox.node import SandboxUnavailable

    try:
        raise typer.Exit(asyncio.run(_play()))
    except SandboxUnavailable as error:
        raise CommandFailed(str(error)) from error


def _reference(document: str) -> dict[str, str]:
    return {"_type": "reference", "_ref": document, "_key": document}


def _course(document: str, slug: str) -> dict[str, object]:
    return {"_id": document, "_type": "course", "slug": {"_type": "slug", "current": slug}}


def story() -> list[Step]:
    """Return the steps, in order."""
    pro: dict[str, object] = {
        "_id": "ent-ada",
        "_type": "entitlement",
        "clerkUserId": ADA,
        "plan": "pro",
        "role": "member",
        "courses": [_reference("course-1")],
    }
    extra = {"_id": "ent-extra", "_type": "entitlement", "clerkUserId": ADA, "courses": [_reference("course-2")]}
    one = {"plan": "pro", "role": "member", "courseSlugs": ["algebra"]}
    both = {**one, "courseSlugs": ["algebra", "biology"]}
    renamed = {**one, "courseSlugs": ["biology", "linear-algebra"]}
    basic = {**renamed, "plan": "basic"}
    return [
        Step("An editor publishes an entitlement for Ada: plan pro, course algebra", [{"create": pro}], {ADA: one}),
        Step("A second entitlement adds the course biology; nothing is overwritten", [{"create": extra}], {ADA: both}),
        Step(
            "The course algebra is renamed; everybody who has it follows",
            [{"patch": {"id": "course-1", "set": {"slug.current": "linear-algebra"}}}],
            {ADA: renamed},
        ),
        Step(
            "Ada is downgraded from pro to basic",
            [{"patch": {"id": "ent-ada", "set": {"plan": "basic"}}}],
            {ADA: basic},
        ),
        Step(
            "The entitlement moves from Ada to Ben",
            [{"patch": {"id": "ent-ada", "set": {"clerkUserId": BEN}}}],
            {
                ADA: {"courseSlugs": ["biology"]},
                BEN: {"plan": "basic", "role": "member", "courseSlugs": ["linear-algebra"]},
            },
        ),
        Step(
            "Both are deleted: no access is left, and the app's own key `theme` is untouched",
            [{"delete": {"id": "ent-ada"}}, {"delete": {"id": "ent-extra"}}],
            {ADA: NOTHING, BEN: NOTHING},
        ),
    ]


async def _play() -> int:
    from rich.console import Console

    from sync_worker.cli.processes import install_hook, listening, settings_for
    from sync_worker.runtime.system_clock import SystemClock
    from sync_worker.sandbox.server import Sandbox

    console, clock = Console(), SystemClock()
    console.print("[bold]sync-worker demo[/bold]: a local Content Lake (real GROQ), a local Clerk, the real worker.")
    async with Sandbox() as box:
        box.clerk.add_user(ADA, email="ada@example.com", public_metadata={"theme": "dark"})
        box.clerk.add_user(BEN, email="ben@example.com")
        await box.lake.mutate([{"create": _course("course-1", "algebra")}, {"create": _course("course-2", "biology")}])
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "worker.log"
            settings = settings_for(box, f"sqlite:///{folder}/demo.db")
            async with listening("serve", settings, log, clock) as url:
                install_hook(box, url)
                for number, step in enumerate(story(), 1):
                    console.print(f"[bold]{number}. {step.title}[/bold]", end=" ", soft_wrap=True)
                    milliseconds = await _perform(box, step, clock)
                    if milliseconds is None:
                        console.print(f"[red]not in sync after {PATIENCE:.0f} s[/red]; the worker's log:")
                        console.print(log.read_text(), markup=False)
                        return 1
                    console.print(f"[green]→ in sync in {milliseconds:.0f} ms[/green]")
                    _show(console, box)
    console.print("\nDone. Next: `sync-worker sandbox` to try your own queries. To go live, see")
    console.print(f"{DOCUMENTATION}/go-live.md", soft_wrap=True)
    return 0


async def _perform(box: Sandbox, step: Step, clock: Clock) -> float | None:
    """Apply one edit. Return the milliseconds until Clerk is in sync, or None after PATIENCE seconds."""
    started = clock.monotonic()
    await box.lake.mutate([dict(mutation) for mutation in step.mutations])
    while clock.monotonic() - started < PATIENCE:
        if all(_access(box, user) == expected for user, expected in step.access.items()):
            return (clock.monotonic() - started) * 1000
        await clock.sleep(0.001)
    return None


def _access(box: Sandbox, user: str) -> dict[str, object]:
    held = box.clerk.users[user]["public_metadata"]
    return {name: value for name, value in held.items() if name != "theme"}


def _show(console: Any, box: Sandbox) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 3), show_header=False)
    for user, name in ((ADA, "Ada"), (BEN, "Ben")):
        held = box.clerk.users[user]["public_metadata"]
        table.add_row(
            name, describe({key: held[key] for key in ("plan", "role", "courseSlugs", "theme") if key in held})
        )
    console.print(table)
