"""Sanity's own client listens to the sandbox, resumes, and reads the transaction log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.node import STYLES, evaluate

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
PACKAGES = Path(__file__).parent / "sanity_client"
PRELUDE = """
  setInterval(() => {}, 1000) // the client's timer for reconnecting does not keep the process alive
  const {createClient} = await import('@sanity/client')
  const {firstValueFrom} = await import('rxjs')
  const {take, takeWhile, tap, toArray} = await import('rxjs/operators')
  const client = createClient({
    projectId: 'sandbox', dataset: 'production', apiVersion: '2025-02-19', useCdn: false, useProjectHostname: false,
    apiHost: given.url, token: given.token,
  })
  const create = (id) => client.create({_id: id, _type: 'entitlement', plan: 'pro'})
  const interrupt = (order) =>
    fetch(`${given.url}/_sandbox/listeners`, {method: 'POST', body: JSON.stringify(order)})
  const query = '*[_type in $types]'
  const params = {types: ['entitlement']}
"""


async def run(box: Sandbox, script: str, token: str | None = None) -> Any:
    """Run a script with a client of the sandbox, and return what it returns."""
    if not (PACKAGES / "node_modules").is_dir():
        pytest.skip("Sanity's client is not installed; run make, or npm ci in tests/sandbox/sanity_client")
    given = {"url": box.sanity_url, "token": token or box.lake.token}
    return await evaluate(PRELUDE + script, given, hooks=STYLES, packages=PACKAGES)


async def test_it_receives_what_was_created_changed_and_deleted(box: Sandbox) -> None:
    events = await run(
        box,
        """
        const options = {events: ['welcome', 'mutation'], includePreviousRevision: true, includeResult: true}
        const steps = {
          welcome: () => create('e'),
          appear: () => client.patch('e').set({plan: 'max'}).commit(),
          update: () => client.delete('e'),
        }
        return firstValueFrom(client.listen(query, params, options).pipe(
          tap((event) => steps[event.transition ?? event.type]?.()), take(4), toArray(),
        ))
        """,
    )
    assert events[0]["listenerName"]
    assert [(event["type"], event["transition"]) for event in events[1:]] == [
        ("mutation", "appear"),
        ("mutation", "update"),
        ("mutation", "disappear"),
    ]
    plans = [((event["previous"] or {}).get("plan"), event.get("result", {}).get("plan")) for event in events[1:]]
    assert plans == [(None, "pro"), ("pro", "max"), ("max", None)]


async def test_it_resumes_after_a_cut_and_receives_what_it_missed(box: Sandbox) -> None:
    events = await run(
        box,
        """
        const options = {events: ['welcome', 'mutation', 'welcomeback', 'reset', 'reconnect'], enableResume: true}
        let isCut = false
        const cut = async () => {
          if (isCut) return
          isCut = true
          await interrupt({action: 'cut'})
          await create('missed')
        }
        const steps = {welcome: () => create('first'), mutation: cut}
        return firstValueFrom(client.listen(query, params, options).pipe(
          tap((event) => steps[event.type]?.()), takeWhile((event) => event.documentId !== 'missed', true), toArray(),
        ))
        """,
    )
    words = [event.get("documentId", event["type"]) for event in events]
    assert words == ["welcome", "first", "reconnect", "welcomeback", "first", "missed"]


async def test_it_is_reset(box: Sandbox) -> None:
    events = await run(
        box,
        """
        const options = {events: ['welcome', 'mutation', 'reset'], enableResume: true}
        const steps = {welcome: () => interrupt({action: 'reset'}), reset: () => create('e')}
        return firstValueFrom(client.listen(query, params, options).pipe(
          tap((event) => steps[event.type]?.()), take(3), toArray(),
        ))
        """,
    )
    assert [event["type"] for event in events] == ["welcome", "reset", "mutation"]


FAILURE = """
  try {
    await firstValueFrom(client.listen(%s, {}, {events: ['welcome']}))
  } catch (error) {
    return {name: error.name, message: error.message, status: error.status}
  }
"""


async def test_it_reports_a_bad_query(box: Sandbox) -> None:
    error = await run(box, FAILURE % "'*[_type =='")
    assert error["name"] == "ChannelError"
    assert "GROQ query parse error" in error["message"]


async def test_it_reports_a_wrong_token(box: Sandbox) -> None:
    error = await run(box, FAILURE % "'*'", token="sk-wrong")
    assert (error["name"], error["status"]) == ("ConnectionFailedError", 401)


async def test_it_reports_that_it_should_stay_away(box: Sandbox) -> None:
    script = """
      const stop = () => interrupt({action: 'disconnect', reason: 'dataset deleted'})
      const listener = client.listen('*', {}, {events: ['welcome', 'mutation']})
      try {
        await firstValueFrom(listener.pipe(tap(stop), take(2), toArray()))
      } catch (error) {
        return `${error.name}: ${error.message}`
      }
    """
    assert await run(box, script) == "DisconnectError: Server disconnected client: dataset deleted"


async def test_it_reads_the_transaction_log(box: Sandbox) -> None:
    script = """
      await create('e')
      await client.delete('e')
      const uri = '/data/history/production/transactions'
      const text = await client.request({uri, query: {excludeContent: 'true', reverse: 'true', limit: '1'}})
      const refused = await client.request({uri}).catch((error) => [error.statusCode, error.message])
      return {lines: text.trim().split('\\n').map(JSON.parse), refused}
    """
    answer = await run(box, script)
    (line,) = answer["lines"]
    assert (line["documentIDs"], line["mutations"]) == (["e"], [{"delete": {"id": "e", "purge": False}}])
    assert answer["refused"][0] == 403
    assert "This API requires excludeContent to be true" in answer["refused"][1]
