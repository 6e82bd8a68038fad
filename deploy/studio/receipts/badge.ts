import type {DocumentBadgeComponent} from 'sanity'

import {STATES} from './receipt.ts'
import {useReceipt, type ReceiptOptions} from './useReceipt.ts'

const COLORS = {positive: 'success', caution: 'warning', critical: 'danger', primary: 'primary', default: undefined} as const

/** A badge beside the document's status: whether access matches what is published. */
export function receiptBadge(options: ReceiptOptions): DocumentBadgeComponent {
  return function ReceiptBadge({id, published}) {
    const seen = useReceipt(options, id, published)
    if (!seen?.receipt) return null // the inspector shows the reason
    const {state, headline} = seen.receipt
    if (!published && state === 'unknown') return null
    const {label, tone} = STATES[state]
    return {label, title: headline, color: COLORS[tone]}
  }
}
