/** Verifies the session of every request. The pages decide what it may see. */
import {clerkMiddleware} from '@clerk/nextjs/server'

export default clerkMiddleware()

export const config = {matcher: ['/((?!_next|.*\\..*).*)']}
