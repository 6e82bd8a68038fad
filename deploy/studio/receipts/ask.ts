import {Door, type PassClient} from './pass.ts'
import {asOf, readReceipt, STATES, type Receipt} from './receipt.ts'

/** What the badge and the pane show: a receipt, or the reason why there is none. */
export type Seen = {receipt: Receipt; trouble?: undefined} | {receipt?: undefined; trouble: string}

const NO_PASS =
  'Receipts need the permission to create drafts in this dataset (Contributor or above), or the proxy refuses this Studio.'
const NO_ANSWER = 'The receipt is not available right now. Publishing still works.'
const SAME_ANSWER = 500
const AFTER_TROUBLE = 15_000
const LONGEST = 60_000

/** A document, and its published revision; null if it has none. */
export interface Followed {
  id: string
  revision: string | null
}

/** Requests receipts from the proxy. The badge and the pane of one document share a response. */
export class Desk {
  readonly #door: Door
  #last: {id: string; at: number; answer: Promise<Seen>} | undefined

  constructor(url: string, client: PassClient) {
    this.#door = new Door(url, client)
  }

  ask(id: string): Promise<Seen> {
    const now = Date.now()
    if (this.#last?.id !== id || now - this.#last.at > SAME_ANSWER) {
      this.#last = {id, at: now, answer: this.#ask(id).catch(() => ({trouble: NO_ANSWER}))}
    }
    return this.#last.answer
  }

  /** Show the receipt, and refresh it while it may still change, until the signal. */
  async follow({id, revision}: Followed, show: (seen: Seen) => void, signal: AbortSignal): Promise<void> {
    for (let turn = 1; !signal.aborted; turn++) {
      let seen = await this.ask(id)
      if (signal.aborted) return
      if (seen.receipt) seen = {receipt: asOf(seen.receipt, revision)}
      show(seen)
      const lasts = seen.receipt ? STATES[seen.receipt.state].lasts : AFTER_TROUBLE
      if (!lasts) return
      await pause(Math.min(lasts * turn, LONGEST), signal)
    }
  }

  async #ask(id: string): Promise<Seen> {
    const answer = await this.#door.get({document: id})
    if (!answer || answer.status === 401) return {trouble: NO_PASS}
    const receipt = answer.ok ? readReceipt(await answer.json()) : null
    return receipt ? {receipt} : {trouble: NO_ANSWER}
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds)
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), {once: true})
  })
}
