import {auth} from '@clerk/nextjs/server'
import {notFound} from 'next/navigation'
import {accessOf} from '../../../lib/access.ts'
import {coursesOf} from '../../../lib/sanity.ts'

export default async function Course({params}: {params: Promise<{slug: string}>}) {
  const {isAuthenticated, redirectToSignIn, sessionClaims} = await auth()
  if (!isAuthenticated) return redirectToSignIn()
  const access = accessOf(sessionClaims)
  const {slug} = await params
  if (!access.courses.includes(slug)) return <h1>Not in your plan</h1>
  const course = (await coursesOf(access)).find((one) => one.slug === slug)
  return course ? <h1>{course.title}</h1> : notFound()
}
