import {Door, type PassClient} from '../receipts/pass.ts'
import {readListings, type Kind, type Listing} from './listing.ts'

/** The entry of a stored id: null where Clerk has none, undefined where the worker could not be reached. */
export type Named = Listing | null | undefined

const IDS_PER_REQUEST = 100
const GATHERED_FOR = 20

interface Batch {
  ids: Set<string>
  answer: Promise<Map<string, Listing> | null>
}

/** Searches people and organizations through the proxy, and names stored ids, those of one moment with one request. */
export class Directory {
  readonly #door: Door
  readonly #batches = new Map<Kind, Batch>()

  constructor(url: string, client: PassClient) {
    this.#door = new Door(url, client)
  }

  /** Return the first matches; null if the worker cannot be reached. */
  search(kind: Kind, text: string): Promise<Listing[] | null> {
    return this.#ask({find: kind, q: text})
  }

  async name(kind: Kind, id: string): Promise<Named> {
    let batch = this.#batches.get(kind)
    if (!batch || batch.ids.size >= IDS_PER_REQUEST) {
      batch = this.#gather(kind)
      this.#batches.set(kind, batch)
    }
    batch.ids.add(id)
    const found = await batch.answer
    return found ? (found.get(id) ?? null) : undefined
  }

  #gather(kind: Kind): Batch {
    const ids = new Set<string>()
    const batch: Batch = {ids, answer: Promise.resolve(null)}
    batch.answer = new Promise((resolve) => setTimeout(resolve, GATHERED_FOR)).then(async () => {
      if (this.#batches.get(kind) === batch) this.#batches.delete(kind)
      const found = await this.#ask({find: kind, id: [...ids].join(',')})
      return found && new Map(found.map((one) => [one.id, one]))
    })
    return batch
  }

  async #ask(query: Record<string, string>): Promise<Listing[] | null> {
    const answer = await this.#door.get(query).catch(() => null)
    return answer?.ok ? readListings(await answer.json().catch(() => null)) : null
  }
}
