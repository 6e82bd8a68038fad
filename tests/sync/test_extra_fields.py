"""Keys of EXTRA_FIELDS and of a namespace: compared as JSON, and never taken from the app."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.settings import packaged_groq
from tests.builders import created
from tests.parts import opened, working
from tests.sync.holders import enqueue, public
from tests.sync.test_ownership import reconcile

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
APP = {"role": "admin", "plan": "team", "theme": "dark"}


def with_field(folder: Path, name: str) -> Path:
    """Return a folder of queries whose rows carry one more field."""
    copied = folder / "groq"
    shutil.copytree(packaged_groq(), copied)
    mapping = copied / "entitlement.groq"
    mapping.write_text(mapping.read_text().replace("  role,\n", f"  role,\n  {name},\n"))
    return copied


@pytest.mark.parametrize("marked", [True, False])
async def test_a_flag_that_turns_from_1_into_true_is_written(
    box: Sandbox, sqlite_url: str, tmp_path: Path, *, marked: bool
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", beta=1)])
    given: dict[str, Any] = {"extra_fields": "beta=latest", "groq_dir": with_field(tmp_path, "beta")}
    async with opened(box, sqlite_url, **given) as parts:
        await reconcile(parts)
        assert public(box)["beta"] == 1
        if not marked:
            box.clerk.users["user_1"]["private_metadata"] = {}
        await box.lake.mutate([{"patch": {"id": "e1", "set": {"beta": True}}}])
        await reconcile(parts)
    assert public(box)["beta"] is True


async def test_what_the_app_wrote_as_true_is_not_ours_because_we_once_wrote_1(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", beta=1), created("e2", "user_2")])
    given: dict[str, Any] = {"extra_fields": "beta=latest", "groq_dir": with_field(tmp_path, "beta")}
    async with opened(box, sqlite_url, **given) as parts:
        await reconcile(parts)
        box.clerk.users["user_1"]["private_metadata"] = {}
        box.clerk.users["user_1"]["public_metadata"]["beta"] = True
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await reconcile(parts)
    assert public(box) == {"beta": True}


async def test_a_setting_named_like_a_key_of_the_app_leaves_it_through_grant_change_and_end(
    box: Sandbox, database_url: str, tmp_path: Path
) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark"})
    await box.lake.mutate([created("e1", "user_1", plan="pro"), created("e2", "user_2", plan="pro")])
    given: dict[str, Any] = {"extra_fields": "theme=latest", "groq_dir": with_field(tmp_path, "theme")}
    async with working(box, database_url, **given) as parts:
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        assert public(box) == {"theme": "dark", "plan": "pro", "courseSlugs": []}
        await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": "basic"}}}])
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        assert public(box) == {"theme": "dark", "plan": "basic", "courseSlugs": []}
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await enqueue(parts, ["user:user_1"], "webhook:e1")
    assert public(box) == {"theme": "dark"}


@pytest.mark.parametrize("where", ["public", "private"])
async def test_a_namespace_replaces_no_key_of_the_app_wherever_that_stands(
    box: Sandbox, sqlite_url: str, where: str
) -> None:
    box.clerk.add_user("user_1")
    box.clerk.users["user_1"][f"{where}_metadata"] = {"access": "by the app"}
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    before = copy.deepcopy(box.clerk.users["user_1"])
    async with working(box, sqlite_url, metadata_namespace="access") as parts:
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        (failed,) = await parts.store.queue.failed(1)
    assert (failed.error_code, box.clerk.users["user_1"]) == ("namespace_occupied", before)
