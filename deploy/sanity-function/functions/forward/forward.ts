/**
 * Sends one document event to sync-worker, with the same signature as Sanity's webhooks.
 *
 * Sanity does not retry failed calls of a Function, so this retries for as long as the Function may run. The worker's
 * poll and its nightly reconcile find what is lost.
 */
import {createHmac} from 'node:crypto'

export interface Target {
  /** Where the worker takes webhooks, as https://sync.example.com/webhooks/sanity. */
  url: string
  /** The value of the worker's SANITY_WEBHOOK_SECRET. */
  secret: string
  /** Milliseconds before each retry. */
  pauses?: number[]
}

const PAUSES = [500, 1000, 2000, 4000, 8000, 16000]
const ANSWER_WITHIN = 3000

export async function forward(event: unknown, {url, secret, pauses = PAUSES}: Target): Promise<void> {
  const body = JSON.stringify(event)
  let trouble = ''
  for (const pause of [0, ...pauses]) {
    await new Promise((resolve) => setTimeout(resolve, pause))
    const status = await post(url, body, secret)
    if (status >= 200 && status < 300) return
    trouble = status ? `it answered ${status}` : 'it did not answer'
    if (!mayPass(status)) break
  }
  throw new Error(`sync-worker did not take the event: ${trouble}`)
}

/** Return the header that Sanity would send with this body: t in milliseconds, v1 over "t.body" in base64url. */
export function sign(body: string, secret: string, milliseconds: number): string {
  const digest = createHmac('sha256', secret.trim()).update(`${milliseconds}.${body}`).digest('base64url')
  return `t=${milliseconds},v1=${digest}`
}

/** Return whether a retry may help: not if the worker refused the event, or the URL is wrong. */
function mayPass(status: number): boolean {
  return status === 0 || status === 408 || status === 429 || status >= 500
}

/** Return the status of the response, or 0 if there is none. */
async function post(url: string, body: string, secret: string): Promise<number> {
  const headers = {
    'content-type': 'application/json',
    'sanity-webhook-signature': sign(body, secret, Date.now()),
  }
  try {
    // Do not follow redirects: they would turn the request into a GET without a body.
    const answer = await fetch(url, {
      method: 'POST',
      redirect: 'manual',
      headers,
      body,
      signal: AbortSignal.timeout(ANSWER_WITHIN),
    })
    await answer.body?.cancel()
    return answer.status
  } catch {
    return 0
  }
}
