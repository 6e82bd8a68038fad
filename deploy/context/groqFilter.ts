/**
 * The `groqFilter` of a Sanity Context endpoint for one person: their courses and nothing else.
 *
 * Take the claims from the verified session only. The filter is a text: Sanity accepts an object too, and an object matches
 * everything.
 */
const NOTHING = '_id == "never-matches"'
const LONGEST = 10_000

export function groqFilter(claims: {courseSlugs?: unknown} | null | undefined): string {
  const given = claims?.courseSlugs
  const slugs = Array.isArray(given) ? given.filter((slug) => typeof slug === 'string') : []
  if (slugs.length === 0) return NOTHING
  const filter = `_type == "course" && slug.current in ${JSON.stringify(slugs)}`
  if (filter.length > LONGEST) throw new Error('Too many courses for one filter: filter by plan instead.')
  return filter
}
