/** What a person may see, by the claims of deploy/clerk/session-token.json. */
export interface Access {
  plan: string | null
  courses: string[]
}

/** Read the claims. A claim of another type, such as an unresolved shortcode, gives nothing. */
export function accessOf(claims: object | null | undefined): Access {
  const {plan, courseSlugs}: {plan?: unknown; courseSlugs?: unknown} = claims ?? {}
  return {
    plan: typeof plan === 'string' ? plan : null,
    courses: Array.isArray(courseSlugs) ? courseSlugs.filter((slug) => typeof slug === 'string') : [],
  }
}
