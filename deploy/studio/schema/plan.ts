import {defineField, defineType} from 'sanity'

import {choice} from './choices.ts'

export const plan = defineType({
  name: 'plan',
  title: 'Plan',
  type: 'document',
  fields: [
    defineField({name: 'title', type: 'string', validation: (rule) => rule.required()}),
    defineField({
      name: 'slug',
      type: 'slug',
      description: 'What the app knows the plan by. It must be in PLAN_ORDER of sync-worker, if that is set.',
      options: {source: 'title'},
      validation: (rule) => rule.required(),
    }),
    defineField({
      name: 'courses',
      type: 'array',
      description: 'Everyone with the plan has these courses.',
      of: [choice('course', 'courses')],
      validation: (rule) => rule.unique(),
    }),
  ],
  orderings: [{title: 'Title', name: 'title', by: [{field: 'title', direction: 'asc'}]}],
  preview: {select: {title: 'title', subtitle: 'slug.current'}},
})
