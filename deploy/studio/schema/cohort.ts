import {defineField, defineType} from 'sanity'

import {choice} from './choices.ts'

export const cohort = defineType({
  name: 'cohort',
  title: 'Cohort',
  type: 'document',
  fields: [
    defineField({name: 'title', type: 'string', validation: (rule) => rule.required()}),
    defineField({name: 'slug', type: 'slug', options: {source: 'title'}, validation: (rule) => rule.required()}),
    defineField({
      name: 'courses',
      type: 'array',
      description: 'Everyone in the cohort has these courses.',
      of: [choice('course', 'courses')],
      validation: (rule) => rule.unique(),
    }),
  ],
  orderings: [{title: 'Title', name: 'title', by: [{field: 'title', direction: 'asc'}]}],
  preview: {select: {title: 'title', subtitle: 'slug.current'}},
})
