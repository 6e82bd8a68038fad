/** Serves the Studio of the demo, the proxy of this kit, and Sanity's API: the sandbox's, and the little it lacks. */
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http'
import type {AddressInfo} from 'node:net'
import {readFile} from 'node:fs/promises'
import {extname, join, normalize} from 'node:path'
import process from 'node:process'
import {Readable} from 'node:stream'

import {passOf, receiptProxy} from '../proxy/receipts.ts'
import {mutationsOf, type Mutation} from './actions.ts'
import {EDITOR, WHERE} from './editor.ts'

const {SANITY_API_URL = '', SANITY_TOKEN = '', SYNC_WORKER_URL = '', ADMIN_TOKEN = '', PORT = '3335'} = process.env
const FILES = process.env.FILES ?? join(import.meta.dirname, 'dist')
const TYPES: Record<string, string> = {'.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml'}
const API = /^\/v[\dX][\dX-]*\//
const AUTHORIZED = {authorization: `Bearer ${SANITY_TOKEN}`}

const proxy = receiptProxy({
  workerUrl: SYNC_WORKER_URL,
  adminToken: ADMIN_TOKEN,
  studioOrigins: [],
  allowed: passOf({...WHERE, token: SANITY_TOKEN, apiUrl: SANITY_API_URL}),
})

/** What Sanity says of the project, and of nobody's account. Paths are without the version. */
const SAID: Record<string, unknown> = {
  '/users/me': EDITOR,
  '/features': [],
  [`/projects/${WHERE.projectId}`]: {id: WHERE.projectId, displayName: 'Sandbox', members: [], features: [], metadata: {}},
  [`/projects/${WHERE.projectId}/datasets`]: [{name: WHERE.dataset, aclMode: 'private'}],
  [`/projects/${WHERE.projectId}/grants`]: {
    'sanity.document.filter': [{grants: ['read', 'create', 'update', 'history', 'editHistory', 'manage'].map((name) => ({name})), config: {filter: '_id in path("**")'}}],
  },
  [`/projects/${WHERE.projectId}/datasets/${WHERE.dataset}/acl`]: [
    {filter: '_id in path("**")', permissions: ['read', 'create', 'update', 'history', 'editHistory']},
  ],
  [`/projects/${WHERE.projectId}/new-content-release-allowed`]: {allowed: false},
}

async function answer(incoming: IncomingMessage, reply: ServerResponse): Promise<void> {
  const url = new URL(incoming.url ?? '/', `http://${incoming.headers.host}`)
  if (url.pathname === '/api/receipts') {
    const headers = new Headers({authorization: incoming.headers.authorization ?? ''})
    return send(reply, await proxy(new Request(url, {method: incoming.method, headers})))
  }
  if (url.pathname === '/ports') return send(reply, Response.json(listenerPorts))
  if (!API.test(url.pathname)) return sendFile(reply, url.pathname)
  if (incoming.headers.origin === `http://localhost:${port}`) {
    reply.setHeader('access-control-allow-origin', incoming.headers.origin) // at the other ports
    reply.setHeader('access-control-allow-credentials', 'true')
  }
  const path = url.pathname.replace(API, '/')
  const body = await read(incoming)
  if (path === `/data/actions/${WHERE.dataset}`) return send(reply, await act(JSON.parse(body)))
  if (path.startsWith('/data/') && !path.includes('/events/')) {
    const gone = new AbortController()
    reply.on('close', () => gone.abort())
    const method = incoming.method ?? 'GET'
    const init = {method, headers: {...AUTHORIZED, 'content-type': 'application/json'}, body: body || undefined, signal: gone.signal}
    return send(reply, await fetch(new URL(url.pathname + url.search, SANITY_API_URL), init))
  }
  if (path.startsWith('/users/') && !(path in SAID)) return send(reply, Response.json(path.includes('keyvalue') ? [] : EDITOR))
  return send(reply, path in SAID ? Response.json(SAID[path]) : Response.json({error: 'Not Found'}, {status: 404}))
}

async function act({actions, transactionId}: {actions: Record<string, unknown>[]; transactionId?: string}): Promise<Response> {
  const mutations: Mutation[] = []
  for (const action of actions) mutations.push(...(await mutationsOf(action, stored)))
  return fetch(`${SANITY_API_URL}/v2025-02-19/data/mutate/${WHERE.dataset}`, {
    method: 'POST',
    headers: {...AUTHORIZED, 'content-type': 'application/json'},
    body: JSON.stringify({mutations, transactionId}),
  })
}

async function stored(id: string) {
  const found = await fetch(`${SANITY_API_URL}/v2025-02-19/data/doc/${WHERE.dataset}/${id}`, {headers: AUTHORIZED})
  return ((await found.json()) as {documents: (Record<string, unknown> & {_id: string})[]}).documents[0]
}

async function sendFile(reply: ServerResponse, path: string): Promise<void> {
  const name = normalize(path).replace(/^(\.\.[/\\])+/, '')
  const found = await readFile(join(FILES, extname(name) ? name : 'index.html')).catch(() => null)
  reply.writeHead(found ? 200 : 404, {'content-type': TYPES[extname(name) || '.html'] ?? 'application/octet-stream'})
  reply.end(found)
}

async function send(reply: ServerResponse, response: Response): Promise<void> {
  reply.setHeader('content-type', response.headers.get('content-type') ?? 'application/json')
  reply.writeHead(response.status).flushHeaders()
  if (response.body) Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]).on('error', () => reply.end()).pipe(reply)
  else reply.end()
}

async function read(incoming: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of incoming) parts.push(part as Buffer)
  return Buffer.concat(parts).toString()
}

const LISTENER_PORTS = 6

function serve(port: number): Promise<number> {
  const server = createServer((incoming, reply) => {
    answer(incoming, reply).catch((error: unknown) => {
      process.stderr.write(`${incoming.method} ${incoming.url}: ${String(error)}\n`)
      if (!reply.headersSent) reply.writeHead(502, {'content-type': 'application/json'})
      reply.end(JSON.stringify({error: 'Bad Gateway', message: String(error)}))
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
  })
}

const port = await serve(Number(PORT)).catch((error: NodeJS.ErrnoException) => {
  const inUse = `Port ${PORT} is in use. Choose another one: make demo-studio PORT=3336`
  process.stderr.write(`${error.code === 'EADDRINUSE' ? inUse : error.message}\n`)
  process.exit(1)
})
const listenerPorts = await Promise.all(Array.from({length: LISTENER_PORTS}, () => serve(0)))
process.stdout.write(`Studio: http://localhost:${port}\n`)
