/** The state of one document in sync-worker: whether access matches what is published. */
export interface Receipt {
  document: string
  state: State
  /** One plain sentence for editors. */
  headline: string
  /** The _rev of the published document that the worker saw; null if it saw none. */
  revision: string | null
  /** Times are RFC 3339. */
  published: string | null
  inClerk: string | null
  inSessionsBy: string | null
  subjects: {subject: string; state: string; reason: string | null}[]
  nextStep: string | null
}

export type State = keyof typeof STATES

/** How each state is shown, and for how many milliseconds it is valid; 0 means until the document changes. */
export const STATES = {
  synced: {label: 'In Clerk', tone: 'positive', lasts: 0},
  late: {label: 'On its way', tone: 'caution', lasts: 2_000},
  pending: {label: 'Waiting', tone: 'primary', lasts: 15_000},
  unknown: {label: 'Not seen yet', tone: 'primary', lasts: 2_000},
  held: {label: 'Held for approval', tone: 'caution', lasts: 15_000},
  refused: {label: 'Refused', tone: 'critical', lasts: 0},
  expired: {label: 'Ended', tone: 'default', lasts: 0},
  inactive: {label: 'Not active', tone: 'default', lasts: 0},
  deleted: {label: 'Taken away', tone: 'default', lasts: 0},
} as const

/** Parse a response; null if it is not a receipt, for example from another version of the worker. */
export function readReceipt(answer: unknown): Receipt | null {
  if (!isObject(answer) || typeof answer.document !== 'string' || typeof answer.headline !== 'string') return null
  const state = typeof answer.state === 'string' && answer.state in STATES ? (answer.state as State) : 'unknown'
  const subjects = Array.isArray(answer.subjects) ? answer.subjects.filter(isObject) : []
  return {
    document: answer.document,
    state,
    headline: answer.headline,
    revision: text(answer.revision),
    published: text(answer.published),
    inClerk: text(answer.inClerk),
    inSessionsBy: text(answer.inSessionsBy),
    subjects: subjects.map((one) => ({
      subject: text(one.subject) ?? '',
      state: text(one.state) ?? '',
      reason: text(one.reason),
    })),
    nextStep: text(answer.nextStep),
  }
}

/**
 * Compare a receipt with the document in the Studio; `revision` is its published one, or null. A receipt of another
 * revision is from before the last publish or unpublish. Times prove nothing: the Studio sets _updatedAt by the
 * browser's clock.
 */
export function asOf(receipt: Receipt, revision: string | null): Receipt {
  if (receipt.state === 'unknown' || receipt.revision === revision) return receipt
  const headline = `${revision ? 'This publish' : 'The unpublish'} has not reached sync-worker yet.`
  return {...receipt, state: 'unknown', headline, published: null, inClerk: null, inSessionsBy: null, nextStep: null}
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value ? value : null
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
