// The Studio's client and the team's app, for tests: the one writes into the stand-in, the other serves the proxy.
import {createServer} from 'node:http'

/** What Sanity's own client does in the two calls that a pass needs. */
export function studioClient({url, dataset, token}) {
  const mutate = async (mutation) => {
    const answer = await fetch(`${url}/v2025-02-19/data/mutate/${dataset}`, {
      method: 'POST',
      headers: {authorization: `Bearer ${token}`, 'content-type': 'application/json'},
      body: JSON.stringify({mutations: [mutation]}),
    })
    if (!answer.ok) throw new Error(`the stand-in answered ${answer.status}`)
  }
  return {
    createOrReplace: (document) => mutate({createOrReplace: document}),
    delete: (selection) => mutate({delete: selection}),
  }
}

/** Serve a function from Request to Response; call `close` at the end. */
export async function serve(answer) {
  const server = createServer(async (incoming, outgoing) => {
    const request = new Request(new URL(incoming.url, 'http://localhost'), {method: incoming.method, headers: incoming.headers})
    const response = await answer(request)
    outgoing.writeHead(response.status, Object.fromEntries(response.headers))
    outgoing.end(await response.text())
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () => (server.closeAllConnections(), server.close())
  return {url: `http://127.0.0.1:${server.address().port}/api/receipts`, close}
}
