"""Approving and dropping a held list in a real browser, as an operator does it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.runtime.wiring import Runtime, open_store
from sync_worker.storage.work_items import WorkItem
from tests.browser import FOUND, browsing
from tests.causes import cause_of
from tests.nursery import listening
from tests.oracle import until
from tests.parts import settings_of
from tests.web.test_browser import FAINT, LOOKS, NAMELESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.runtime.wiring import Store
    from sync_worker.sandbox.server import Sandbox
    from tests.browser import Tab

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(FOUND is None, reason="no Chromium is installed: chromium, chromium-browser or google-chrome"),
]
TOKEN = "a long random text"
USERS = ("user_0", "user_1", "user_2")
KEYS = [f"user:{user}" for user in USERS]
CONFIRM = "form.sign-in"
by_http = pytest.mark.full("in a browser what every commit does over HTTP (tests/web/test_approval.py)")


@dataclass(frozen=True)
class Operator:
    """Somebody who has come from a notice: a browser, and the list that is held."""

    box: Sandbox
    store: Store
    tab: Tab
    url: str
    held: str

    @property
    def page(self) -> str:
        return f"{self.url}/held/{self.held}"

    async def open(self) -> str:
        await self.tab.open(self.page)
        return await self.tab.text()

    async def sign_in(self) -> None:
        await self.open()
        await self.tab.submit(".sign-in", token=TOKEN)

    async def press(self, action: str) -> str:
        """Press a button of the list; return the confirmation."""
        await self.tab.submit(f".decide form:has([value={action}])")
        return await self.tab.text()

    async def confirm(self, name: str = "Ada Lovelace") -> str:
        await self.tab.submit(CONFIRM, operator=name)
        return await self.tab.text()

    def plans(self) -> list[object]:
        return [self.box.clerk.users[user]["public_metadata"].get("plan") for user in USERS]

    async def decisions(self) -> set[tuple[str, str, str]]:
        """Return cause, name and state of the newest entry of everybody in the ledger."""
        entries = [(await self.store.ledger.history(key, 1))[0] for key in KEYS]
        assert all(entry.at > 0 for entry in entries)
        return {(entry.cause, entry.by, entry.state.value) for entry in entries}


async def publish(box: Sandbox, **fields: Any) -> None:
    rows = ({"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro"} for user in USERS)
    await box.lake.mutate([{"createOrReplace": {**row, **fields}} for row in rows])


async def synced(store: Store, cause: str = "") -> None:
    await store.queue.enqueue([WorkItem(key, cause=cause_of(cause)) for key in KEYS])
    for key in KEYS:
        while (row := await store.queue.get(key)) and row.pending and not row.dead:
            await store.database.changed(0.05)


@pytest.fixture
async def operator(box: Sandbox, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Operator]:
    """A list of three people who would lose a plan because a plan document changed."""
    environment = {**settings_for(box, sqlite_url), "ADMIN_TOKEN": TOKEN, "MAX_REVOCATIONS": "1"}
    for user in USERS:
        box.clerk.add_user(user)
    async with (
        listening("serve", environment, tmp_path / "log") as url,
        browsing(tmp_path / "profile") as tab,
        open_store(settings_of(box, sqlite_url), Runtime.system()) as store,
    ):
        await publish(box)
        await synced(store)
        await publish(box, status="off")
        await synced(store, "document:plan-1")
        (held,) = await store.approvals.changesets()
        yield Operator(box, store, tab, url, held.id)


async def test_approving_takes_the_access_away_and_the_ledger_names_who(operator: Operator) -> None:
    assert "Sign in" in await operator.open()
    await operator.tab.submit(".sign-in", token=TOKEN)
    text = await operator.tab.text()
    assert all(words in text for words in ("3 would lose access by document:plan-1", *KEYS, "plan pro", "nothing"))
    assert "Take access away from 3 subjects?" in await operator.press("approve")
    assert operator.plans() == ["pro", "pro", "pro"]
    await operator.confirm()
    assert await operator.tab.run("location.pathname") == f"/held/{operator.held}"
    await until(lambda: operator.plans() == [None, None, None])
    await synced(operator.store)
    assert await operator.decisions() == {(f"approve:{operator.held}", "Ada Lovelace", "applied")}
    assert "No changeset is held under this id" in await operator.open()


@by_http
async def test_from_a_notice_to_the_person_the_document_and_the_approval_are_five_clicks(operator: Operator) -> None:
    tab = operator.tab
    await operator.sign_in()  # the first: the link of the notice
    assert "3 would lose access by document:plan-1" in await tab.text()
    await tab.click("document.querySelector('a[href=\"/subjects/user:user_1\"]')")
    await tab.until("location.pathname === '/subjects/user:user_1' && document.readyState === 'complete'")
    person = await tab.text()
    assert ("held" in person, "plan pro" in person) == (True, True)
    await tab.click("document.querySelector('a[href=\"/documents/ent-user_1\"]')")
    await tab.until("location.pathname === '/documents/ent-user_1' && document.readyState === 'complete'")
    assert "ent-user_1" in await tab.text()
    await tab.run("history.go(-2)")
    await tab.until(f"location.pathname === '/held/{operator.held}' && document.readyState === 'complete'")
    await operator.press("approve")
    await operator.confirm()
    await until(lambda: operator.plans() == [None, None, None])


@by_http
async def test_the_list_and_its_confirmations_can_be_read_by_everybody(operator: Operator) -> None:
    await operator.sign_in()
    for action in ("", "approve", "drop"):
        await operator.open()
        if action:
            await operator.press(action)
        for width, height, scheme in LOOKS:
            await operator.tab.look(width, height, scheme)
            assert await operator.tab.run(FAINT) == []
            assert await operator.tab.run("document.documentElement.scrollWidth") <= width
        assert await operator.tab.run(NAMELESS) == []
    assert operator.tab.complaints == []


@by_http
async def test_dropping_keeps_the_access_and_the_ledger_names_who(operator: Operator) -> None:
    await operator.sign_in()
    assert "Drop the list of 3 subjects?" in await operator.press("drop")
    assert "The list is dropped." in await operator.confirm("Ben")
    assert operator.plans() == ["pro", "pro", "pro"]
    assert await operator.decisions() == {(f"drop:{operator.held}", "Ben", "abandoned")}
    assert await operator.store.approvals.changesets() == []


@by_http
async def test_a_list_that_changed_meanwhile_is_shown_again_and_not_decided(operator: Operator) -> None:
    await operator.sign_in()
    await operator.press("approve")
    await operator.store.approvals.release(["user:user_2"])
    text = await operator.confirm()
    assert "Nothing was done." in text
    assert "The list has changed since the page was opened." in text
    assert operator.plans() == ["pro", "pro", "pro"]
    assert "user:user_2" not in await operator.open()
    assert "Take access away from 2 subjects?" in await operator.press("approve")


@by_http
@pytest.mark.parametrize("action", ["approve", "drop"])
async def test_a_doubled_click_decides_once(operator: Operator, action: str) -> None:
    await operator.sign_in()
    await operator.press(action)
    await operator.tab.run(
        "(() => { const form = document.querySelector('form.sign-in'), button = form.querySelector('button');"
        "form.elements.operator.value = 'Ada'; window.left = true; button.click(); button.click(); })()"
    )
    await operator.tab.until("!window.left && document.readyState === 'complete'")
    if action == "approve":
        await until(lambda: operator.plans() == [None, None, None])
    await synced(operator.store)
    reported = {"approve": f"approve:{operator.held}", "drop": f"drop:{operator.held}"}[action]
    for key in KEYS:
        entries = [entry for entry in await operator.store.ledger.history(key) if entry.cause == reported]
        assert [entry.by for entry in entries] == ["Ada"]


@by_http
async def test_a_stale_form_does_nothing(operator: Operator) -> None:
    """The form is of a session that was ended in another tab, and of another one by now."""
    await operator.sign_in()
    await operator.press("approve")
    stale = await operator.tab.run("document.querySelector('form.sign-in').outerHTML")
    await operator.open()
    await operator.tab.submit(".sign-out")
    await operator.sign_in()
    await operator.tab.run(f"(() => {{ document.querySelector('main').innerHTML = {stale!r}; }})()")
    text = await operator.confirm()
    assert "Nothing was done." in text
    assert "The form has expired, or is of another session." in text
    assert operator.plans() == ["pro", "pro", "pro"]


@by_http
async def test_without_a_sign_in_nothing_is_shown_and_nothing_is_done(operator: Operator) -> None:
    await operator.sign_in()
    await operator.press("approve")
    await operator.tab.call("Network.clearBrowserCookies")
    text = await operator.confirm()
    assert "Sign in" in text
    assert not re.search("user_[0-9]", text)
    await synced(operator.store)
    assert operator.plans() == ["pro", "pro", "pro"]
