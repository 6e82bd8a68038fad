import {auth} from '@clerk/nextjs/server'
import {accessOf} from '../../../lib/access.ts'

/** The claims of the visitor's own token, and what the app makes of them. */
export default async function Claims() {
  const {isAuthenticated, redirectToSignIn, sessionClaims} = await auth()
  if (!isAuthenticated) return redirectToSignIn()
  return <pre>{JSON.stringify({claims: sessionClaims, access: accessOf(sessionClaims)}, null, 2)}</pre>
}
