import process from 'node:process'

import {documentEventHandler} from '@sanity/functions'

import {forward} from './forward.ts'

export const handler = documentEventHandler(async ({event}) => {
  await forward(event.data, {url: setting('SYNC_WORKER_URL'), secret: setting('SANITY_WEBHOOK_SECRET')})
})

function setting(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set; npx sanity functions env add forward ${name} VALUE`)
  return value
}
