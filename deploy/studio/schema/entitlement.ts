import {defineField, defineType} from 'sanity'

import {choice} from './choices.ts'

/** Several entitlements may name the same person: plans and roles are merged by rank, courses as a union. */
export const entitlement = defineType({
  name: 'entitlement',
  title: 'Entitlement',
  type: 'document',
  groups: [
    {name: 'whom', title: 'For whom', default: true},
    {name: 'what', title: 'What'},
    {name: 'when', title: 'When'},
  ],
  fields: [
    defineField({
      name: 'clerkUserId',
      title: 'Clerk user',
      type: 'string',
      group: 'whom',
      description: 'Begins with user_, as in Clerk under Users. The surest way to name a person.',
      validation: (rule) => rule.regex(/^user_\w+$/, {name: 'Clerk user id'}),
    }),
    defineField({
      name: 'userExternalId',
      title: 'External id',
      type: 'string',
      group: 'whom',
      description: "The person's id in your own system, if Clerk has it as external id.",
      validation: (rule) => rule.max(1000).custom(onlyWithout('clerkUserId')),
    }),
    defineField({
      name: 'userEmail',
      title: 'E-mail address',
      type: 'string',
      group: 'whom',
      description: 'The primary, verified address. Access waits until somebody signs up with it.',
      validation: (rule) => rule.email().custom(onlyWithout('clerkUserId', 'userExternalId')),
    }),
    defineField({
      name: 'clerkOrganizationId',
      title: 'Clerk organization',
      type: 'string',
      group: 'whom',
      description: 'Begins with org_. Alone: the whole organization. With a person: their membership in it.',
      validation: (rule) => rule.regex(/^org_\w+$/, {name: 'Clerk organization id'}),
    }),
    defineField({
      name: 'plan',
      type: 'reference',
      group: 'what',
      description: 'The plan, with its courses. (Entitlements that an import writes may have the slug as a text here.)',
      to: [{type: 'plan'}],
      options: {filter: 'defined(slug.current)'},
    }),
    defineField({
      name: 'role',
      type: 'string',
      group: 'what',
      description: 'As the app knows it. It must be in ROLE_ORDER of sync-worker, if that is set.',
      validation: (rule) => rule.max(1000),
    }),
    defineField({
      name: 'courses',
      type: 'array',
      group: 'what',
      description: 'Courses beside those of the plan and the cohorts.',
      of: [choice('course', 'courses')],
      validation: (rule) => rule.unique(),
    }),
    defineField({
      name: 'cohorts',
      type: 'array',
      group: 'what',
      description: 'The courses of these cohorts.',
      of: [choice('cohort', 'cohorts')],
      validation: (rule) => rule.unique(),
    }),
    defineField({
      name: 'startsAt',
      title: 'Starts',
      type: 'datetime',
      group: 'when',
      description: 'Empty: at once. Publish early; access opens by itself.',
    }),
    defineField({
      name: 'endsAt',
      title: 'Ends',
      type: 'datetime',
      group: 'when',
      description: 'Empty: never. Access closes by itself.',
      validation: (rule) => rule.custom(afterTheStart),
    }),
    defineField({
      name: 'status',
      type: 'string',
      group: 'when',
      description: 'Only active counts. To take access away for good, unpublish or delete the document.',
      options: {
        list: [
          {title: 'Active', value: 'active'},
          {title: 'Paused', value: 'paused'},
        ],
        layout: 'radio',
      },
      initialValue: 'active',
    }),
  ],
  validation: (rule) => [rule.custom(namesSomebody), rule.custom(givesSomething).warning()],
  orderings: [
    {title: 'Last changed', name: 'changed', by: [{field: '_updatedAt', direction: 'desc'}]},
    {title: 'Ends first', name: 'ends', by: [{field: 'endsAt', direction: 'asc'}]},
    {
      title: 'Person',
      name: 'person',
      by: [
        {field: 'clerkUserId', direction: 'asc'},
        {field: 'userEmail', direction: 'asc'},
      ],
    },
  ],
  preview: {
    select: {
      clerkUserId: 'clerkUserId',
      userExternalId: 'userExternalId',
      userEmail: 'userEmail',
      clerkOrganizationId: 'clerkOrganizationId',
      planTitle: 'plan.title',
      role: 'role',
      course: 'courses.0.title',
      cohort: 'cohorts.0.title',
      endsAt: 'endsAt',
      status: 'status',
    },
    prepare: (seen) => ({title: person(seen), subtitle: gist(seen)}),
  },
})

const NAMES = ['clerkUserId', 'userExternalId', 'userEmail', 'clerkOrganizationId']
const GIFTS = ['plan', 'role', 'courses', 'cohorts']

type Fields = Record<string, unknown>

function namesSomebody(document?: Fields): true | string {
  return NAMES.some((name) => document?.[name]) || 'Say whom it is for: a person, an organization, or both.'
}

function givesSomething(document?: Fields): true | string {
  return GIFTS.some((name) => document?.[name]) || 'It gives no plan, role, course or cohort yet.'
}

/** If a document names a person in several ways, only the most specific one counts; another would mislead readers. */
function onlyWithout(...surer: string[]) {
  return (value: string | undefined, {document}: {document?: Fields}): true | string => {
    const other = surer.find((name) => value && document?.[name])
    return other ? `Leave it empty: the person is already named by ${other}.` : true
  }
}

function afterTheStart(endsAt: string | undefined, {document}: {document?: Fields}): true | string {
  const startsAt = document?.startsAt
  if (!endsAt || typeof startsAt !== 'string') return true
  return Date.parse(endsAt) > Date.parse(startsAt) || 'It ends before it starts, and gives nothing.'
}

function person(seen: Fields): string {
  const named = seen.clerkUserId ?? seen.userExternalId ?? seen.userEmail
  return [named, seen.clerkOrganizationId].filter(Boolean).join(' in ') || 'Nobody yet'
}

function gist(seen: Fields): string {
  const ends = typeof seen.endsAt === 'string' && `until ${seen.endsAt.slice(0, 10)}`
  const paused = seen.status && seen.status !== 'active' ? String(seen.status) : ''
  return [seen.planTitle, seen.role, seen.course, seen.cohort, ends, paused].filter(Boolean).join(' · ')
}
