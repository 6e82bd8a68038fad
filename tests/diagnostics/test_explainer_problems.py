"""What `explain` says when it cannot read: what to correct, and not that waiting helps."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from sync_worker.diagnostics.explainer import causes_of
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import CredentialsRefused, DatasetEmpty, GroqInvalid
from sync_worker.settings import packaged_groq
from tests.web.pages import serving

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
PLACES = ["/subjects/user:user_1", "/documents/ent-1"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_wrong_file_is_to_be_corrected(box: Sandbox, sqlite_url: str, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    for name in ("by_subject", "affected"):
        file = folder / f"{name}.groq"
        file.write_text(file.read_text().replace("_type ==", "_type = "))
    box.clerk.add_user("user_1")
    async with serving(box, sqlite_url, groq_dir=folder) as web:
        data = await web.json(place)
    assert (data["state"], data["nextStep"]) == ("unknown", GroqInvalid.next_step())


@pytest.mark.parametrize("place", PLACES)
async def test_a_refused_token_is_to_be_checked(box: Sandbox, sqlite_url: str, place: str) -> None:
    async with serving(box, sqlite_url, sanity_read_token="wrong") as web:
        data = await web.json(place)
    assert (data["state"], data["nextStep"]) == ("unknown", CredentialsRefused.next_step())


async def test_where_nothing_is_visible_the_types_and_the_dataset_are_to_be_checked(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    async with serving(box, sqlite_url) as web:
        data = await web.json("/subjects/user:user_1")
        assert data["nextStep"] == DatasetEmpty.next_step()
        await web.publish("ent-2", clerkUserId="user_2")
        assert (await web.json("/subjects/user:user_1"))["nextStep"] == ""


def test_what_the_stream_reported_of_a_document_is_found() -> None:
    assert str(Cause(CauseKind.LISTEN, "ent-1")) in causes_of("ent-1")
