/** Next.js: app/api/receipts/route.ts. In the Studio: entitlementReceipts({receiptUrl: 'https://YOUR-APP/api/receipts'}). */
import process from 'node:process'

import {passOf, receiptProxy} from './receipts.ts'

let proxy: ReturnType<typeof receiptProxy> | undefined

/** The environment is read at the first request, because it may be missing when the app is built. */
function answer(request: Request): Promise<Response> {
  proxy ??= receiptProxy({
    workerUrl: setting('SYNC_WORKER_URL'),
    adminToken: setting('SYNC_WORKER_ADMIN_TOKEN'),
    studioOrigins: setting('STUDIO_ORIGINS').split(','),
    allowed: passOf({
      projectId: setting('SANITY_PROJECT_ID'),
      dataset: process.env.SANITY_DATASET ?? 'production',
      token: setting('SANITY_READ_TOKEN'),
    }),
  })
  return proxy(request)
}

export {answer as GET, answer as OPTIONS}

function setting(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set`)
  return value
}
