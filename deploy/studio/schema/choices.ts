import {type ArrayOfType, defineArrayMember} from 'sanity'

/** A reference to a document with a slug, without duplicates: without a slug it would grant nothing. */
export function choice(to: string, chosen: string): ArrayOfType<'reference'> {
  return defineArrayMember({
    type: 'reference',
    to: [{type: to}],
    options: {
      filter: ({document}) => ({
        filter: 'defined(slug.current) && !(_id in $chosen)',
        params: {chosen: references(document[chosen])},
      }),
    },
  })
}

function references(value: unknown): string[] {
  if (!Array.isArray(value)) return []
  return value.flatMap((item: {_ref?: string}) => (item._ref ? [item._ref] : []))
}
