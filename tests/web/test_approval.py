"""The buttons of a held changeset: approve and drop, with a confirmation, and what they refuse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.service import running_worker
from sync_worker.storage.approvals import HeldChange, changeset_id
from sync_worker.web.site import SESSION
from tests.web.pages import HTML, JSON, TOKEN, Web, authenticator, serving, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
USERS = ("user_0", "user_1", "user_2")
KEYS = [f"user:{user}" for user in USERS]


@pytest.fixture
async def web(box: Sandbox, sqlite_url: str) -> AsyncIterator[Web]:
    """Three people of whom one plan's change would take the plan away, which the guard holds."""
    async with serving(box, sqlite_url, max_revocations="1") as web:
        for user in USERS:
            box.clerk.add_user(user)
            await web.publish(f"ent-{user}", clerkUserId=user)
        await web.sync(*KEYS)
        await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"status": "off"}}} for user in USERS])
        await web.sync(*KEYS, cause="document:plan-1")
        web.client.cookies.set(SESSION, authenticator().new_session(""))
        yield web


async def held_id(web: Web) -> str:
    (held,) = await web.store.approvals.changesets()
    return held.id


def plans(web: Web) -> list[object]:
    return [web.box.clerk.users[user]["public_metadata"].get("plan") for user in USERS]


def form_in(page: str, action: str) -> dict[str, str]:
    """Return the hidden fields of the form for one action."""
    forms = re.findall(r'<form [^>]*action="/held.*?</form>', page, re.DOTALL)
    for form in forms:
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        if fields["action"] == action:
            return fields
    raise AssertionError(page)


async def opened(web: Web, action: str) -> dict[str, str]:
    return form_in((await web.client.get(f"/held/{await held_id(web)}", headers=HTML)).text, action)


async def post(web: Web, path: str, fields: dict[str, str]) -> httpx.Response:
    return await web.client.post(path, data=fields, headers=HTML)


async def confirmation(web: Web, action: str) -> tuple[str, dict[str, str]]:
    """Press a button; return the text of the confirmation and its form, filled in."""
    page = await post(web, f"/held/{await held_id(web)}", await opened(web, action))
    assert page.status_code == 200
    return words(page.text), {**form_in(page.text, action), "operator": "Ada"}


async def work_off(web: Web) -> None:
    async with running_worker(web.settings, web.store):
        for key in KEYS:
            while (row := await web.store.queue.get(key)) and row.pending and not row.dead:
                await web.store.database.changed(0.05)


async def test_approving_needs_a_confirmation_of_the_number_of_subjects_and_writes_nothing_yet(web: Web) -> None:
    text, _ = await confirmation(web, "approve")
    assert "Take access away from 3 subjects?" in text
    await work_off(web)
    assert plans(web) == ["pro", "pro", "pro"]


async def test_an_approved_list_is_taken_away_by_the_worker_and_the_ledger_says_why(
    web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    id_ = await held_id(web)
    _, form = await confirmation(web, "approve")
    answer = await post(web, f"/held/{id_}", form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/held/{id_}")
    assert "3 subjects still to be written" in words(await web.page(f"/held/{id_}"))
    logged = "".join(capsys.readouterr())
    assert "changeset_approved" in logged
    assert "Ada" in logged
    assert plans(web) == ["pro", "pro", "pro"]
    await work_off(web)
    assert plans(web) == [None, None, None]
    assert await web.store.approvals.changesets() == []
    for key in KEYS:
        (entry, *_) = await web.store.ledger.history(key, 1)
        assert (entry.cause, entry.by, entry.state) == (f"approve:{id_}", "Ada", "applied")


async def test_a_subject_that_is_entitled_again_keeps_its_access(web: Web) -> None:
    _, form = await confirmation(web, "approve")
    await web.box.lake.mutate([{"patch": {"id": "ent-user_1", "set": {"status": "active"}}}])
    await post(web, f"/held/{await held_id(web)}", form)
    await work_off(web)
    assert plans(web) == [None, "pro", None]


async def test_an_approval_does_not_count_for_a_subject_that_is_on_no_list(web: Web) -> None:
    id_ = await held_id(web)
    _, form = await confirmation(web, "approve")
    await post(web, f"/held/{id_}", form)
    await web.store.approvals.drop(id_)
    await work_off(web)
    assert plans(web) == ["pro", "pro", "pro"]


async def test_a_dropped_list_is_gone_and_everybody_keeps_their_access(web: Web) -> None:
    id_ = await held_id(web)
    text, form = await confirmation(web, "drop")
    assert "Drop the list of 3 subjects?" in text
    answer = await post(web, f"/held/{id_}", form)
    assert (answer.status_code, "The list is dropped" in answer.text) == (200, True)
    assert await web.store.approvals.changesets() == []
    for key in KEYS:
        (entry, *_) = await web.store.ledger.history(key, 1)
        assert (entry.kind, entry.before["plan"], entry.after) == ("revoke", "pro", {})
        assert (entry.cause, entry.by, entry.state) == (f"drop:{id_}", "Ada", "abandoned")
    await work_off(web)
    assert plans(web) == ["pro", "pro", "pro"]


async def test_a_doubled_click_is_refused_and_changes_nothing(web: Web) -> None:
    _, form = await confirmation(web, "approve")
    path = f"/held/{await held_id(web)}"
    await post(web, path, form)
    again = await post(web, path, form)
    assert (again.status_code, "approved already" in again.text) == (409, True)


async def test_a_click_after_the_list_is_gone_is_refused(web: Web) -> None:
    path = f"/held/{await held_id(web)}"
    _, form = await confirmation(web, "drop")
    await post(web, path, form)
    again = await post(web, path, form)
    assert (again.status_code, "No changeset is held under this id" in again.text) == (404, True)


@pytest.mark.parametrize("action", ["approve", "drop"])
async def test_a_list_that_changed_after_it_was_shown_is_not_decided(web: Web, action: str) -> None:
    _, form = await confirmation(web, action)
    await web.store.approvals.release(["user:user_2"])
    answer = await post(web, f"/held/{await held_id(web)}", form)
    assert (answer.status_code, "The list has changed" in answer.text) == (409, True)
    assert await web.store.approvals.changesets() != []
    await work_off(web)
    assert plans(web) == ["pro", "pro", "pro"]


@pytest.mark.parametrize("wrong", [{"code": ""}, {"code": "0" * 64}, {"version": "0" * 64}, {"action": "drop"}])
async def test_a_form_that_was_not_shown_to_this_session_is_refused(web: Web, wrong: dict[str, str]) -> None:
    _, form = await confirmation(web, "approve")
    answer = await post(web, f"/held/{await held_id(web)}", {**form, **wrong})
    assert (answer.status_code, "Nothing was done" in answer.text) == (400, True)
    assert len(await web.store.approvals.all_changes(await held_id(web))) == 3


async def test_a_form_of_another_session_is_refused(web: Web) -> None:
    _, form = await confirmation(web, "approve")
    web.client.cookies.set(SESSION, authenticator().new_session(""))
    assert (await post(web, f"/held/{await held_id(web)}", form)).status_code == 400


async def test_the_confirmation_cannot_be_skipped(web: Web) -> None:
    form = {**await opened(web, "approve"), "operator": "Ada"}
    page = await post(web, f"/held/{await held_id(web)}", form)
    assert (page.status_code, "Take access away from 3 subjects?" in words(page.text)) == (200, True)
    await work_off(web)
    assert plans(web) == ["pro", "pro", "pro"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\u200bb"])
async def test_a_decision_needs_a_name(web: Web, name: str) -> None:
    _, form = await confirmation(web, "approve")
    page = await post(web, f"/held/{await held_id(web)}", {**form, "operator": name})
    assert (page.status_code, "Enter your name" in page.text) == (400, True)


async def test_without_a_sign_in_the_buttons_lead_to_the_form(web: Web) -> None:
    _, form = await confirmation(web, "approve")
    path = f"/held/{await held_id(web)}"
    web.client.cookies.clear()
    answer = await post(web, path, form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")
    answer = await web.client.post(path, data=form, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 400
    await work_off(web)
    assert plans(web) == ["pro", "pro", "pro"]


async def test_a_long_list_has_fifty_subjects_on_a_page_and_every_page_decides_on_all_of_them(web: Web) -> None:
    many = [HeldChange(f"user:user_{n:03}", {"plan": "pro"}, {}) for n in range(120)]
    await web.store.approvals.hold("document:plan-2", many, "120 would lose access")
    path = f"/held/{changeset_id('document:plan-2')}"
    first, last = [(await web.client.get(f"{path}{query}", headers=HTML)).text for query in ("", "?page=3")]
    assert (first.count('<th scope="row">'), last.count('<th scope="row">')) == (50, 20)
    assert f'href="{path}?page=2"' in first
    page = await post(web, path, form_in(last, "approve"))
    assert "Take access away from 120 subjects?" in words(page.text)
    assert len((await web.client.get(path, headers=JSON)).json()["changes"]) == 120
