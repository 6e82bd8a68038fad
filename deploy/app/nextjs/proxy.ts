/**
 * Verifies the session of every request. The pages decide what it may see.
 *
 * The key makes it work without a call to Clerk. `authorizedParties` refuses tokens that were made for another site.
 */
import {clerkMiddleware} from '@clerk/nextjs/server'

export default clerkMiddleware({
  jwtKey: process.env.CLERK_JWT_KEY,
  authorizedParties: process.env.APP_ORIGINS?.split(','),
})

export const config = {matcher: ['/((?!_next|.*\\..*).*)']}
