import type {Access} from './access.ts'

export interface Course {
  title: string
  slug: string
}

const COURSES = '*[_type == "course" && slug.current in $courses] | order(title) {title, "slug": slug.current}'

/** Read the courses of a person. The slugs are bound as a parameter, never written into the query. */
export async function coursesOf(access: Access): Promise<Course[]> {
  const {SANITY_PROJECT_ID: project, SANITY_DATASET: dataset = 'production', SANITY_READ_TOKEN: token} = process.env
  const base = process.env.SANITY_API_URL ?? `https://${project}.api.sanity.io`
  const query = new URLSearchParams({
    query: COURSES,
    $courses: JSON.stringify(access.courses),
    perspective: 'published',
  })
  const response = await fetch(`${base}/v2025-02-19/data/query/${dataset}?${query}`, {
    headers: {authorization: `Bearer ${token}`},
    cache: 'no-store',
  })
  if (!response.ok) throw new Error(`Sanity answered ${response.status}`)
  return ((await response.json()) as {result: Course[]}).result
}
