/**
 * Proves to the proxy that a request comes from an editor, without a secret in the browser: the Studio puts a draft into
 * the dataset, which only members of the project can do, and the proxy checks that it exists. The draft's id is a hash,
 * so read access to the dataset is not enough to forge a pass.
 */
export const PASS_TYPE = 'syncWorkerPass'
/** Milliseconds for which the proxy accepts a pass; the Studio renews it a little earlier. */
export const PASS_LASTS = 60 * 60 * 1000
const RENEWED_AFTER = PASS_LASTS - 10 * 60 * 1000

const EXPIRED = `*[_type == "${PASS_TYPE}" && dateTime(_updatedAt) < dateTime(now()) - ${PASS_LASTS / 1000}]`

/** The part of the Studio's client that is needed here. */
export interface PassClient {
  createOrReplace(document: {_id: string; _type: string}): Promise<unknown>
  delete(selection: {query: string}): Promise<unknown>
}

export interface Pass {
  text: string
  renewAt: number
}

export async function issuePass(client: PassClient): Promise<Pass> {
  const pass = {text: hex(crypto.getRandomValues(new Uint8Array(32))), renewAt: Date.now() + RENEWED_AFTER}
  await client.createOrReplace({_id: await passDocument(pass.text), _type: PASS_TYPE})
  client.delete({query: EXPIRED}).catch(() => {}) // the next one tidies up
  return pass
}

/** Sends requests to the proxy with a pass, and renews it. */
export class Door {
  readonly #url: string
  readonly #client: PassClient
  #pass: Promise<Pass> | undefined

  constructor(url: string, client: PassClient) {
    this.#url = url
    this.#client = client
  }

  /** Send a request; null if Sanity does not let us put a pass into the dataset. */
  async get(query: Record<string, string>): Promise<Response | null> {
    const answer = await this.#get(query)
    if (answer?.status !== 401) return answer
    this.#pass = undefined // it expired, or somebody deleted its draft
    return this.#get(query)
  }

  async #get(query: Record<string, string>): Promise<Response | null> {
    const pass = await this.#current().catch(() => null)
    if (!pass) return null
    const url = new URL(this.#url)
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
    return fetch(url, {headers: {authorization: `Bearer ${pass.text}`}, credentials: 'same-origin'})
  }

  async #current(): Promise<Pass> {
    const pass = await this.#pass?.catch(() => undefined)
    if (!pass || pass.renewAt < Date.now()) this.#pass = issuePass(this.#client)
    return this.#pass as Promise<Pass>
  }
}

/** Return the id of the draft that proves a pass. */
export async function passDocument(pass: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(pass))
  return `drafts.${PASS_TYPE}-${hex(new Uint8Array(digest))}`
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
