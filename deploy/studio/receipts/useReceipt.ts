import {useEffect, useMemo, useState} from 'react'
import {useClient} from 'sanity'

import {Desk, type Seen} from './ask.ts'

export interface ReceiptOptions {
  /** The route of your app that uses proxy/. Never the worker itself: its ADMIN_TOKEN must not reach a browser. */
  receiptUrl: string
  /** The document types that have receipts; default: entitlement. */
  types?: string[]
}

/** One desk for each dataset and proxy, so that all documents share one pass. */
const desks = new Map<string, Desk>()

/** Follow the receipt of a document; null until the first answer. */
export function useReceipt({receiptUrl}: ReceiptOptions, id: string, published: {_rev: string} | null): Seen | null {
  const client = useClient({apiVersion: '2025-02-19'})
  const [seen, setSeen] = useState<Seen | null>(null)
  const revision = published?._rev ?? null

  const desk = useMemo(() => {
    const {projectId, dataset} = client.config()
    const key = JSON.stringify([receiptUrl, projectId, dataset])
    const known = desks.get(key) ?? new Desk(receiptUrl, client)
    desks.set(key, known)
    return known
  }, [client, receiptUrl])

  useEffect(() => {
    const left = new AbortController()
    setSeen(null)
    void desk.follow({id, revision}, setSeen, left.signal)
    return () => left.abort()
  }, [desk, id, revision])

  return seen
}
