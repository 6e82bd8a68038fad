/** A person or an organization of Clerk, as the worker names it. The e-mail address is masked. */
export interface Listing {
  id: string
  name: string
  email: string
  image: string
}

export type Kind = 'people' | 'organizations'

/** Parse a response of the worker, entry by entry; null if it is not a list. */
export function readListings(answer: unknown): Listing[] | null {
  if (!Array.isArray(answer)) return null
  return answer.filter(isEntry).map(({id, name, email, image}) => ({
    id,
    name: text(name),
    email: text(email),
    image: text(image).startsWith('https://') ? text(image) : '',
  }))
}

/** What a list shows of a person or an organization: the name, or else what there is. */
export function titleOf({id, name, email}: Listing): string {
  return name || email || id
}

function isEntry(value: unknown): value is {id: string} & Record<string, unknown> {
  return typeof value === 'object' && value !== null && typeof (value as {id?: unknown}).id === 'string'
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
