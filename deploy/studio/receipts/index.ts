/** In sanity.config.ts: plugins: [entitlementReceipts({receiptUrl: 'https://YOUR-APP/api/receipts'})] */
import {definePlugin} from 'sanity'

import {receiptBadge} from './badge.ts'
import {receiptInspector} from './inspector.tsx'
import type {ReceiptOptions} from './useReceipt.ts'

export const entitlementReceipts = definePlugin<ReceiptOptions>((options) => {
  const {types = ['entitlement']} = options
  const badge = receiptBadge(options)
  const inspector = receiptInspector(options)
  return {
    name: 'sync-worker-receipts',
    document: {
      badges: (badges, {schemaType}) => (types.includes(schemaType) ? [...badges, badge] : badges),
      inspectors: (inspectors, {documentType}) => (types.includes(documentType) ? [...inspectors, inspector] : inspectors),
    },
  }
})
