/** The content model of groq/entitlement.groq. In sanity.config.ts: schema: {types: [...entitlementTypes]} */
import {cohort} from './cohort.ts'
import {course} from './course.ts'
import {entitlement} from './entitlement.ts'
import {plan} from './plan.ts'

export const entitlementTypes = [entitlement, plan, course, cohort]
