// The GROQ evaluator of the local Content Lake, and its query index. Reads JSON requests from stdin, one per line, and
// writes one response per line to stdout: `<id> ok|error <JSON>`.
//
// Requests: {id, op: "apply", puts, drops} · {id, op: "clear"} · {id, op: "query", query, params, perspective, now,
// sanity, isPlain?} · {id, op: "delta", filter, projection, before, after, now, sanity, identity} · {id, op: "matches",
// query, params, documents, now, sanity}. They are served in order.

import {createInterface} from 'node:readline'
import {evaluate, evaluateSync, parse} from './groq_js.mjs'
import {Rewritten} from './rewrite.mjs'
import {Dataset} from './views.mjs'

const dataset = new Dataset()
const cache = new Map()
const CACHED = 1000

function cached(key, make) {
  let value = cache.get(key)
  if (!value) {
    if (cache.size >= CACHED) cache.clear()
    cache.set(key, (value = make()))
  }
  return value
}

function parsed(text, options) {
  try {
    return parse(text, options)
  } catch (error) {
    const at = error.position ?? 0
    throw new Error(error.message, {cause: {type: 'queryParseError', start: at, end: text.length}})
  }
}

function* nodes(tree) {
  if (tree === null || typeof tree !== 'object') return
  if ('type' in tree) yield tree
  for (const child of Object.values(tree)) yield* nodes(child)
}

function compile(query, numbers) {
  const tree = parsed(query, {params: numbers})
  const all = [...nodes(tree)]
  return {
    tree,
    rewritten: new Rewritten(tree),
    wanted: all.filter((node) => node.type === 'Parameter').map((node) => node.name),
    isAsynchronous: all.some((node) => node.type === 'FuncCall' && ['delta', 'diff'].includes(node.namespace)),
  }
}

/** Numbers are bound while parsing, because `[0...$n]` needs a constant. */
function numbersOf(params) {
  return Object.fromEntries(Object.entries(params).filter(([, value]) => typeof value === 'number'))
}

function compiled(query, params) {
  const numbers = numbersOf(params)
  const found = cached(`query ${JSON.stringify(numbers)} ${query}`, () => compile(query, numbers))
  const missing = found.wanted.find((name) => !(name in params))
  if (missing !== undefined) {
    const start = query.indexOf(`$${missing}`)
    const cause = {type: 'queryParseError', start, end: start + missing.length + 1}
    throw new Error(`param $${missing} referenced, but not provided`, {cause})
  }
  return found
}

async function query({query, params, perspective, now, sanity, isPlain}) {
  const {tree, rewritten, isAsynchronous} = compiled(query, params)
  const view = dataset.view(perspective)
  const dereference = ({_ref}) => view.docs.get(_ref)
  const options = {dataset: view.sorted, params, timestamp: new Date(now), sanity, dereference, identity: 'p-sandbox'}
  if (isPlain) return (await evaluate(tree, {...options, dereference: undefined})).get()
  if (isAsynchronous) return (await evaluate(tree, options)).get()
  return evaluateSync(rewritten.tree, {...options, params: rewritten.parameters(view, options)}).data
}

/** The filter of a listener's query, without the order, slices and projections that follow it. */
function filterOf(tree) {
  let node = tree
  while (node && node.type !== 'Filter' && node.type !== 'Everything') node = node.base
  if (!node) throw new Error('a listener needs a query that starts with a filter, such as *[_type == "post"]')
  return node
}

/** Which of the documents a listener's query selects. Each is alone in its dataset, so joins find nothing. */
function matches({query, params, documents, now, sanity}) {
  const filter = filterOf(compiled(query, params).tree)
  const options = {params, timestamp: new Date(now), sanity, dereference: () => undefined, identity: 'p-sandbox'}
  return documents.map((doc) => doc !== null && evaluateSync(filter, {...options, dataset: [doc]}).data.length > 0)
}

/** Sanity ignores these two in `delta::changedOnly()`; groq-js does not. */
function ignoringSystemFields(before, after) {
  return before && after && {...before, _rev: after._rev, _updatedAt: after._updatedAt}
}

/** Whether a change of a document matches a webhook's filter, and the projection if it does. */
async function delta({filter, projection, before, after, now, sanity, identity}) {
  const docs = dataset.view('raw').docs
  const dereference = ({_ref}) => docs.get(_ref)
  const options = {
    root: after ?? before, before, after, dataset: [], dereference, timestamp: new Date(now), sanity, identity,
  }
  const value = async (text, more) => {
    const tree = cached(`delta ${text}`, () => parsed(text, {mode: 'delta'}))
    return (await (await evaluate(tree, {...options, ...more})).get()) ?? null
  }
  const scope = filter.includes('changedOnly') ? {before: ignoringSystemFields(before, after) ?? before} : {}
  const isMatch = (await value(filter, scope)) === true
  return {isMatch, payload: isMatch ? await value(projection) : null}
}

const OPERATIONS = {
  apply: ({puts, drops}) => dataset.apply(puts, drops),
  clear: () => dataset.clear(),
  query,
  delta,
  matches,
}

async function answer(line) {
  const request = JSON.parse(line)
  try {
    const value = await OPERATIONS[request.op](request)
    return `${request.id} ok ${JSON.stringify(value ?? null)}\n`
  } catch (error) {
    const details = {description: error.message, ...error.cause}
    return `${request.id} error ${JSON.stringify(details)}\n`
  }
}

for await (const line of createInterface({input: process.stdin, crlfDelay: Infinity})) {
  process.stdout.write(await answer(line))
}
