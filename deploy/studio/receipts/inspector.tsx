import {defineDocumentInspector, getPublishedId, useEditState, type DocumentInspectorProps} from 'sanity'
import {DocumentInspectorHeader} from 'sanity/structure'

import {ReceiptView} from './ReceiptView.tsx'
import {useReceipt, type ReceiptOptions} from './useReceipt.ts'

/** A pane beside the document: its receipt. */
export function receiptInspector(options: ReceiptOptions) {
  function ReceiptInspector({documentId, documentType, onClose}: DocumentInspectorProps) {
    const id = getPublishedId(documentId)
    const {published} = useEditState(id, documentType)
    const seen = useReceipt(options, id, published)
    return (
      <>
        <DocumentInspectorHeader as="header" title="Access" closeButtonLabel="Close" onClose={onClose} flex="none" />
        <ReceiptView seen={seen} />
      </>
    )
  }
  return defineDocumentInspector({
    name: 'sync-worker-receipt',
    component: ReceiptInspector,
    useMenuItem: () => ({title: 'Access', icon: KeyIcon, showAsAction: true}),
  })
}

function KeyIcon() {
  return (
    <svg width="1em" height="1em" viewBox="0 0 25 25" fill="none" stroke="currentColor" strokeWidth="1.2">
      <circle cx="8.5" cy="16.5" r="4" />
      <path d="M11.5 13.5 19.5 5.5M16 9l3 3" />
    </svg>
  )
}
