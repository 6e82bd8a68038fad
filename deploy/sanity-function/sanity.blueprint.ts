import process from 'node:process'

import {defineBlueprint, defineDocumentFunction} from '@sanity/blueprints'

// The project and dataset as the worker has them. Without them the function would run for every dataset of the project.
const {SANITY_PROJECT_ID, SANITY_DATASET = 'production'} = process.env
if (!SANITY_PROJECT_ID) throw new Error('SANITY_PROJECT_ID is not set')

export default defineBlueprint({
  resources: [
    defineDocumentFunction({
      name: 'forward',
      // All attempts together, each with its answer.
      timeout: 60,
      event: {
        on: ['create', 'update', 'delete'],
        resource: {type: 'dataset', id: `${SANITY_PROJECT_ID}.${SANITY_DATASET}`},
        // groq/webhook_filter.groq and groq/webhook_projection.groq. If you changed yours, change these too.
        filter: `
          (before()._type in ["entitlement", "plan", "cohort", "course"] || after()._type in ["entitlement", "plan", "cohort", "course"])
          && !(coalesce(after()._id, before()._id) in path("drafts.**"))
          && !(coalesce(after()._id, before()._id) in path("versions.**"))
        `,
        projection: `{
          "v": 1,
          "operation": delta::operation(),
          "projectId": sanity::projectId(),
          "dataset": sanity::dataset(),
          "id": coalesce(after()._id, before()._id),
          "type": coalesce(after()._type, before()._type),
          "rev": coalesce(after()._rev, before()._rev),
          "updatedAt": coalesce(after()._updatedAt, before()._updatedAt),
          "before": before(){_type, clerkUserId, clerkOrganizationId, userEmail, userExternalId},
          "after": after(){_type, clerkUserId, clerkOrganizationId, userEmail, userExternalId},
          "by": identity()
        }`,
      },
    }),
  ],
})
