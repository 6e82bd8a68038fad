import {auth} from '@clerk/nextjs/server'
import Link from 'next/link'
import {accessOf} from '../lib/access.ts'
import {coursesOf} from '../lib/sanity.ts'

export default async function Overview() {
  const {isAuthenticated, redirectToSignIn, sessionClaims} = await auth()
  if (!isAuthenticated) return redirectToSignIn()
  const access = accessOf(sessionClaims)
  return (
    <main>
      <h1>Your plan: {access.plan ?? 'none'}</h1>
      <ul>
        {(await coursesOf(access)).map(({slug, title}) => (
          <li key={slug}>
            <Link href={`/courses/${slug}`}>{title}</Link>
          </li>
        ))}
      </ul>
    </main>
  )
}
