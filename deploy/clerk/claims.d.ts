/** What session-token.json puts into every session token. A claim is null or absent when nothing was granted. */
export {}

declare global {
  interface CustomJwtSessionClaims {
    plan?: string | null
    role?: string | null
    courseSlugs?: string[] | null
  }
}
