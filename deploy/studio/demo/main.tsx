/** A real Studio with this kit, on the sandbox: server.ts serves it, and all that it asks for. */
import {createClient, type ClientConfig} from '@sanity/client'
import {createMockAuthStore, defineConfig, renderStudio} from 'sanity'
import {structureTool} from 'sanity/structure'

import {peoplePickers} from '../people/index.ts'
import {entitlementReceipts} from '../receipts/index.ts'
import {entitlementTypes} from '../schema/index.ts'
import {EDITOR, WHERE} from './editor.ts'

// Over HTTP/1 a browser opens six connections to one port, and a Studio listens more often: so it listens at further ones.
const ports = (await (await fetch('/ports')).json()) as number[]
let listeners = 0
window.EventSource = class extends EventSource {
  constructor(url: string | URL, options?: EventSourceInit) {
    const own = new URL(url)
    own.port = String(ports[listeners++ % ports.length])
    super(own, options)
  }
}

// Sanity warns of HTTP/1, which is all that this machine speaks to itself.
sessionStorage.setItem('sanity-studio.network.check.snooze', new Date().toISOString())

// All requests go to the page's own server, which passes them on to the sandbox.
const own = {...WHERE, apiHost: location.origin, useProjectHostname: false, useCdn: false}
const clientOf = (config: ClientConfig) => createClient({...config, ...own})
const proxyUrl = `${location.origin}/api/receipts`

renderStudio(
  document.getElementById('sanity') as HTMLElement,
  defineConfig({
    name: 'default',
    title: 'Sandbox',
    ...WHERE,
    apiHost: location.origin,
    unstable_clientFactory: clientOf,
    auth: createMockAuthStore({client: clientOf({apiVersion: '2025-02-19'}), currentUser: EDITOR}),
    schema: {types: entitlementTypes},
    search: {strategy: 'groqLegacy'}, // groq-js lacks what the newer one needs
    scheduledPublishing: {enabled: false},
    releases: {enabled: false},
    tasks: {enabled: false},
    plugins: [structureTool(), entitlementReceipts({receiptUrl: proxyUrl}), peoplePickers({proxyUrl})],
  }),
)
