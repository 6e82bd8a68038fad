from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.oracle import GUARD

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox
    from tests.sandbox.conftest import Receiver

HOOKS = "/v2025-02-19/hooks/projects/sandbox"
HOOK: dict[str, Any] = {
    "type": "document",
    "name": "sync",
    "url": "http://127.0.0.1:9/hook",
    "dataset": "production",
    "apiVersion": "v2021-03-25",
    "httpMethod": "POST",
    "includeDrafts": False,
    "includeAllVersions": False,
    "headers": {},
    "secret": "s3cret",
    "rule": {"on": ["create", "update"], "filter": '_type == "entitlement"', "projection": "{_id}"},
}


@pytest.mark.anyio
async def test_a_hook_is_created_listed_changed_and_deleted(sanity: httpx.AsyncClient) -> None:
    created = await sanity.post(HOOKS, json=HOOK)
    assert created.status_code == 201
    hook = created.json()
    assert HOOK.items() <= hook.items()
    assert (await sanity.get(HOOKS)).json() == [hook]
    changed = await sanity.patch(f"{HOOKS}/{hook['id']}", json={"isDisabledByUser": True})
    assert (changed.json()["isDisabled"], changed.json()["url"]) == (True, HOOK["url"])
    rule = {"on": ["delete"], "filter": "true"}
    changed = await sanity.patch(f"{HOOKS}/{hook['id']}", json={"rule": rule})
    assert changed.json()["rule"] == {**rule, "projection": None}
    assert (await sanity.delete(f"{HOOKS}/{hook['id']}")).status_code == 200
    assert (await sanity.get(HOOKS)).json() == []
    assert (await sanity.get(f"{HOOKS}/{hook['id']}")).status_code == 404


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"on": ["create"]}, '"on" is not allowed'),
        ({"isDisabled": True}, '"isDisabled" is not allowed'),
        ({"rule": {"on": ["create"], "filter": None}}, '"rule.filter"'),
        ({"rule": {"on": ["created"]}}, '"rule.on.0"'),
        ({"rule": {"on": []}}, '"rule.on"'),
        ({"rule": {"on": ["create"], "filter": "_type =="}}, "Syntax error"),
        ({"rule": {"on": ["create"], "projection": "{"}}, "Syntax error"),
        ({"dataset": ""}, '"dataset"'),
        ({"url": "nowhere"}, '"url"'),
    ],
)
async def test_what_sanity_refuses_is_refused(
    box: Sandbox, sanity: httpx.AsyncClient, change: dict[str, Any], words: str
) -> None:
    answer = await sanity.post(HOOKS, json=HOOK | change)
    assert answer.status_code == 400
    assert words in str(answer.json())
    assert box.lake.webhooks.hooks == {}


@pytest.mark.anyio
async def test_hooks_need_an_administrator_and_the_right_project(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    viewer = {"authorization": f"Bearer {box.lake.viewer_token}"}
    lacking = await sanity.get(HOOKS, headers=viewer)
    assert (lacking.status_code, "errorCode" in lacking.json()) == (401, False)
    assert "missing required grant sanity.project.webhooks/read" in lacking.json()["message"]
    unknown = await sanity.get(HOOKS, headers={"authorization": "Bearer wrong"})
    assert (unknown.status_code, unknown.json()["errorCode"]) == (401, "SIO-401-ANF")
    assert (await sanity.get("/v2025-02-19/hooks/projects/other")).status_code == 404


@pytest.mark.anyio
async def test_the_type_of_a_hook_is_not_sent_again(sanity: httpx.AsyncClient) -> None:
    hook = (await sanity.post(HOOKS, json=HOOK)).json()
    refused = await sanity.patch(f"{HOOKS}/{hook['id']}", json={"type": "document"})
    assert (refused.status_code, '"type" is not allowed' in refused.json()["message"]) == (400, True)


@pytest.mark.anyio
async def test_what_the_platform_disabled_a_user_cannot_enable(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    hook = (await sanity.post(HOOKS, json=HOOK)).json()
    await box.lake.webhooks.change(hook["id"], is_disabled_by_platform=True)
    changed = (await sanity.patch(f"{HOOKS}/{hook['id']}", json={"isDisabledByUser": False})).json()
    assert (changed["isDisabled"], changed["isDisabledByUser"]) == (True, False)
    await box.lake.mutate([{"create": {"_id": "a", "_type": "entitlement"}}])
    await box.lake.hooks_idle()
    assert not box.lake.webhooks.deliveries.messages


@pytest.mark.anyio
async def test_attempts_and_messages_show_what_became_of_deliveries(
    box: Sandbox, sanity: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.statuses = [400]
    hook = (await sanity.post(HOOKS, json=HOOK | {"url": receiver.url})).json()
    for id_ in ("a", "b"):
        await box.lake.mutate([{"create": {"_id": id_, "_type": "entitlement"}}])
    async with asyncio.timeout(GUARD):
        await box.lake.hooks_idle()
    attempts = (await sanity.get(f"{HOOKS}/{hook['id']}/attempts")).json()
    assert [(one["resultCode"], one["isFailure"], one["failureReason"]) for one in attempts] == [
        (202, False, None),
        (400, True, "http"),
    ]
    messages = (await sanity.get(f"{HOOKS}/{hook['id']}/messages", params={"limit": 1, "offset": 1})).json()
    assert [(one["payload"], one["status"], one["failureCount"]) for one in messages] == [('{"_id":"a"}', "failure", 1)]
    assert {one["messageId"] for one in attempts} >= {messages[0]["id"]}


@pytest.mark.anyio
@pytest.mark.parametrize("params", [{"limit": 51}, {"limit": "all"}, {"offset": 1001}, {"offset": -1}])
async def test_an_invalid_page_of_attempts_is_refused(
    box: Sandbox, sanity: httpx.AsyncClient, params: dict[str, Any]
) -> None:
    hook = box.lake.add_hook("http://127.0.0.1:9/hook")
    assert (await sanity.get(f"{HOOKS}/{hook.id}/attempts", params=params)).status_code == 400


@pytest.mark.anyio
async def test_an_installed_hook_sends_with_its_method_and_headers(
    box: Sandbox, sanity: httpx.AsyncClient, receiver: Receiver
) -> None:
    settings = {"url": receiver.url, "httpMethod": "PUT", "headers": {"x-team": "school"}}
    await sanity.post(HOOKS, json=HOOK | settings)
    await box.lake.mutate([{"create": {"_id": "a", "_type": "entitlement"}}])
    async with asyncio.timeout(GUARD):
        await box.lake.hooks_idle()
    (received,) = receiver.received
    assert (received.method, received.headers["x-team"]) == ("PUT", "school")
