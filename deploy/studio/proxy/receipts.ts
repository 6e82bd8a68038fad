/**
 * A route of your app that serves the receipts of sync-worker to the Studio, and names for its pickers. ADMIN_TOKEN
 * stays on this server: it opens every page of the worker and must never reach a browser. An editor gets single
 * receipts, and at most ten matches of a search or the names of stored ids, and nothing else.
 *
 * Web standards only: a function from Request to Response, for Next.js, Remix, Hono, Cloudflare, Deno and Node alike.
 */
import {readListings} from '../people/listing.ts'
import {PASS_LASTS, passDocument} from '../receipts/pass.ts'
import {readReceipt} from '../receipts/receipt.ts'

export interface ProxyOptions {
  /** Where the worker listens, as https://sync.example.com. */
  workerUrl: string
  /** The worker's ADMIN_TOKEN. */
  adminToken: string
  /** Where your Studio is, as https://acme.sanity.studio; nobody else's page may read the answers. */
  studioOrigins: string[]
  /** Authorizes a request: passOf(…), or a check of your own, such as the session of an app that the Studio is part of. */
  allowed: (request: Request) => Promise<boolean>
}

const DOCUMENT = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
const IDS = /^(?:user|org)_\w+(?:,(?:user|org)_\w+){0,99}$/
const LONGEST_SEARCH = 100
const PASS = /^Bearer ([0-9a-f]{64})$/
const ANSWER_WITHIN = 5000

export function receiptProxy({workerUrl, adminToken, studioOrigins, allowed}: ProxyOptions) {
  return async function answer(request: Request): Promise<Response> {
    const origin = request.headers.get('origin')
    const headers = new Headers({'cache-control': 'no-store', vary: 'origin'})
    if (origin && studioOrigins.includes(origin)) {
      headers.set('access-control-allow-origin', origin)
      headers.set('access-control-allow-headers', 'authorization')
      headers.set('access-control-max-age', '600')
    }
    const reply = (status: number, body: unknown) => Response.json(body, {status, headers})

    if (request.method === 'OPTIONS') return new Response(null, {status: 204, headers})
    if (request.method !== 'GET') return reply(405, {error: 'method_not_allowed'})
    const query = new URL(request.url).searchParams
    const names = query.has('find')
    const path = names ? namesPath(query) : receiptPath(query)
    if (!path) return reply(400, {error: names ? 'bad_query' : 'bad_document'})
    try {
      if (!(await allowed(request))) return reply(401, {error: 'not_an_editor'})
      const found = await fetchFrom(workerUrl, adminToken, path)
      const body = names ? readListings(found) : readReceipt(found)
      return body ? reply(200, body) : reply(502, {error: names ? 'no_names' : 'no_receipt'})
    } catch {
      return reply(502, {error: 'unavailable'})
    }
  }
}

function receiptPath(query: URLSearchParams): string | null {
  const id = query.get('document') ?? ''
  return DOCUMENT.test(id) ? `/documents/${encodeURIComponent(id)}` : null
}

function namesPath(query: URLSearchParams): string | null {
  const kind = query.get('find') ?? ''
  const text = query.get('q')?.trim() ?? ''
  const ids = query.get('id') ?? ''
  if (kind !== 'people' && kind !== 'organizations') return null
  if (text) return text.length <= LONGEST_SEARCH ? `/${kind}?${new URLSearchParams({q: text})}` : null
  return IDS.test(ids) ? `/${kind}?${new URLSearchParams({id: ids})}` : null
}

/** Return the worker's JSON; null if it refuses. */
async function fetchFrom(workerUrl: string, adminToken: string, path: string): Promise<unknown> {
  const answer = await fetch(new URL(path, workerUrl), {
    headers: {accept: 'application/json', authorization: `Bearer ${adminToken}`},
    cache: 'no-store',
    redirect: 'error',
    signal: AbortSignal.timeout(ANSWER_WITHIN),
  })
  return answer.ok ? answer.json() : null
}

export interface Dataset {
  projectId: string
  dataset: string
  /** A token that may read drafts; the worker's SANITY_READ_TOKEN works. */
  token: string
  /** Only for tests and proxies; default: the project's own host. */
  apiUrl?: string
}

/** Allow requests with a pass, which proves write access to this dataset; see receipts/pass.ts. */
export function passOf({projectId, dataset, token, apiUrl = `https://${projectId}.api.sanity.io`}: Dataset) {
  return async function allowed(request: Request): Promise<boolean> {
    const pass = PASS.exec(request.headers.get('authorization') ?? '')?.[1]
    if (!pass) return false
    const id = await passDocument(pass)
    // Unlike the query index, the document store does not lag: a pass is valid as soon as it is written.
    const answer = await fetch(new URL(`/v2025-02-19/data/doc/${dataset}/${id}`, apiUrl), {
      headers: {authorization: `Bearer ${token}`},
      cache: 'no-store',
      signal: AbortSignal.timeout(ANSWER_WITHIN),
    })
    if (!answer.ok) throw new Error(`Sanity answered ${answer.status}`)
    const {documents = []} = (await answer.json()) as {documents?: {_id: string; _updatedAt: string}[]}
    const draft = documents.find((one) => one._id === id)
    return draft !== undefined && Date.now() - Date.parse(draft._updatedAt) < PASS_LASTS
  }
}
