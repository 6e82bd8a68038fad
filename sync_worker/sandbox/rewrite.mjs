// Makes a parsed query start from the few documents that can match, instead of from all of them.
//
// `*[_type == "x" && clerkUserId in $ids]` over 100,000 documents must take milliseconds. Each `*[…]` in the tree is
// replaced by a parameter that holds its candidates, found in the hash indexes of a view; groq-js evaluates the filter on
// the candidates. `*[…] | order(_id)[a...b]` stops as soon as the page is full. A test compares the results with those of
// the original tree.

import {evaluateSync} from './groq_js.mjs'
import {lowerBound, union} from './views.mjs'

const PURE_FUNCTIONS = {
  global: new Set(['coalesce', 'defined', 'length', 'lower', 'path', 'references', 'round', 'string', 'upper']),
  string: new Set(['lower', 'split', 'startsWith', 'upper']),
  array: new Set(['compact', 'join', 'unique']),
}
const CONSTANT = new Set(['Value', 'Parameter', 'Group', 'Array', 'ArrayElement', 'FuncCall'])
const OF_THE_DOCUMENT = new Set([
  'AccessAttribute', 'AccessElement', 'ArrayCoerce', 'FlatMap', 'FuncCall', 'Group', 'Map', 'Slice', 'This', 'Value',
])

const FILTERS = new Set([...OF_THE_DOCUMENT, 'And', 'Array', 'ArrayElement', 'InRange', 'Not', 'OpCall', 'Or'])

function children(node) {
  return Object.values(node).flat().filter((child) => child !== null && typeof child === 'object' && 'type' in child)
}

function consistsOf(node, types) {
  if (!types.has(node.type)) return false
  if (node.type === 'Value') return true
  if (node.type === 'FuncCall' && !PURE_FUNCTIONS[node.namespace]?.has(node.name)) return false
  // It reads the document, even though none of its arguments does.
  if (node.name === 'references' && !types.has('This')) return false
  return children(node).every((child) => consistsOf(child, types))
}

const isConstant = (node) => consistsOf(node, CONSTANT)
const isKey = (node) => consistsOf(node, OF_THE_DOCUMENT) && node.type !== 'Value'

/** The filter depends only on the document and the text of the query, so its result can be an index. */
const isStatic = (node) => consistsOf(node, FILTERS)

const isId = (node) => node.type === 'AccessAttribute' && node.name === '_id' && !node.base

const isPrimitive = (value) => ['string', 'number', 'boolean'].includes(typeof value)

function scalarKey(node) {
  return (doc) => {
    const value = evaluateSync(node, {root: doc}).data
    return isPrimitive(value) ? [value] : []
  }
}

function elementKeys(node) {
  return (doc) => {
    const value = evaluateSync(node, {root: doc}).data
    return Array.isArray(value) ? new Set(value.filter(isPrimitive)) : []
  }
}

/** Every id that `references()` would find in the value. */
function references(value, found = new Set()) {
  if (Array.isArray(value)) value.forEach((element) => references(element, found))
  else if (value !== null && typeof value === 'object') {
    if (value._ref) found.add(value._ref)
    else Object.values(value).forEach((member) => references(member, found))
  }
  return found
}

const constant = (node, params) => evaluateSync(node, {params}).data

function lookup(kind, node, keys, view) {
  if (!keys.every(isPrimitive)) return null
  const keysOf = kind === 'scalar' ? scalarKey(node) : elementKeys(node)
  return view.index(`${kind} ${JSON.stringify(node)}`, keysOf).find(keys)
}

function candidatesOfCall({op, left, right}, view, params) {
  if (op === '==') {
    const [key, value] = isConstant(left) ? [right, left] : [left, right]
    if (isKey(key) && isConstant(value)) return lookup('scalar', key, [constant(value, params)], view)
  }
  if (op === 'in' && isKey(left) && isConstant(right)) {
    const values = constant(right, params)
    return Array.isArray(values) ? lookup('scalar', left, values, view) : null
  }
  if (op === 'in' && isConstant(left) && isKey(right)) {
    return lookup('elements', right, [constant(left, params)], view)
  }
  return null
}

/** The documents, sorted by `_id`, for which `expr` may be true; null when that is unknown. */
function candidates(expr, view, params) {
  switch (expr.type) {
    case 'Group':
      return candidates(expr.base, view, params)
    case 'And': {
      const left = candidates(expr.left, view, params)
      const right = candidates(expr.right, view, params)
      if (!left || !right) return left ?? right
      return left.length <= right.length ? left : right
    }
    case 'Or': {
      const left = candidates(expr.left, view, params)
      const right = left && candidates(expr.right, view, params)
      return right && union([left, right])
    }
    case 'OpCall':
      return candidatesOfCall(expr, view, params)
    case 'FuncCall':
      if (expr.namespace !== 'global' || expr.name !== 'references' || !expr.args.every(isConstant)) return null
      return view.index('references', references).find(expr.args.flatMap((arg) => constant(arg, params)))
    default:
      return null
  }
}

/** The smallest `_id` for which `expr` may be true: the start of a keyset page. */
function smallestId(expr, params) {
  if (expr.type === 'Group') return smallestId(expr.base, params)
  if (expr.type === 'And') {
    const bounds = [smallestId(expr.left, params), smallestId(expr.right, params)]
    return bounds[0] > bounds[1] ? bounds[0] : bounds[1]
  }
  if (expr.type === 'OpCall' && ['>', '>='].includes(expr.op) && isId(expr.left) && isConstant(expr.right)) {
    const bound = constant(expr.right, params)
    return typeof bound === 'string' ? bound : ''
  }
  return ''
}

function startingFrom(expr, view, params) {
  const docs = candidates(expr, view, params) ?? view.sorted
  const start = lowerBound(docs, smallestId(expr, params))
  return start === 0 ? docs : docs.slice(start)
}

function matching(expr, view) {
  const keysOf = (doc) => (evaluateSync(expr, {root: doc}).data === true ? [true] : [])
  return view.index(`filter ${JSON.stringify(expr)}`, keysOf).find([true])
}

const isOrderById = (node) =>
  node.type === 'PipeFuncCall' && node.name === 'order' && node.args.length === 1 &&
  isId(node.args[0].type === 'Asc' ? node.args[0].base : node.args[0])

/** The combined expression of `*[a][b]`, or null if the node is not a filter over everything. */
function filterOverEverything(node) {
  if (node.type !== 'Filter') return null
  if (node.base.type === 'Everything') return node.expr
  const inner = filterOverEverything(node.base)
  return inner && {type: 'And', left: inner, right: node.expr}
}

const OPENS_A_SCOPE = new Set(['Filter', 'Map', 'FlatMap', 'Projection', 'PipeFuncCall'])

/** A tree in which each `*[…]` is a parameter, with the functions that fill these parameters. */
export class Rewritten {
  fillers = []

  constructor(tree) {
    this.tree = this.rewrite(tree, true)
  }

  /** The parameters for evaluating `tree`. `options` are those of groq-js. */
  parameters(view, options) {
    const filled = {...options.params}
    for (const fill of this.fillers) fill(filled, view, options)
    return filled
  }

  /** `isOutermost`: the node is evaluated once, in the scope of the query, so it may be computed beforehand. */
  rewrite(node, isOutermost) {
    if (Array.isArray(node)) return node.map((child) => this.rewrite(child, isOutermost))
    if (node === null || typeof node !== 'object' || node.type === 'Value') return node
    return (isOutermost && this.page(node)) || this.ordered(node) || this.filtered(node) || this.inside(node, isOutermost)
  }

  inside(node, isOutermost) {
    const entries = Object.entries(node).map(([name, child]) => {
      const isSameScope = name === 'base' || !OPENS_A_SCOPE.has(node.type)
      return [name, this.rewrite(child, isOutermost && isSameScope)]
    })
    return Object.fromEntries(entries)
  }

  parameter(fill) {
    const name = `#${this.fillers.length}`
    this.fillers.push((filled, view, options) => (filled[name] = fill(view, {...options, params: filled})))
    return {type: 'Parameter', name}
  }

  filtered(node) {
    const expr = filterOverEverything(node)
    if (!expr) return null
    if (isStatic(expr)) return this.parameter((view) => matching(expr, view))
    const base = this.parameter((view, {params}) => startingFrom(expr, view, params))
    return {type: 'Filter', base, expr: this.rewrite(expr, false)}
  }

  /** Candidates are sorted by `_id` already. */
  ordered(node) {
    return isOrderById(node) ? this.filtered(node.base) : null
  }

  page(node) {
    if (node.type !== 'Slice' || node.left < 0 || node.right < 0 || !isOrderById(node.base)) return null
    const expr = filterOverEverything(node.base.base)
    if (!expr) return null
    const end = node.right + (node.isInclusive ? 1 : 0)
    const filter = {type: 'Filter', base: {type: 'Parameter', name: '#some'}, expr: this.rewrite(expr, false)}
    return this.parameter((view, options) => {
      const docs = startingFrom(expr, view, options.params)
      let rows = []
      for (let at = 0; at < docs.length && rows.length < end; at += end) {
        const params = {...options.params, '#some': docs.slice(at, at + end)}
        rows = rows.concat(evaluateSync(filter, {...options, params}).data)
      }
      return rows.slice(node.left, end)
    })
  }
}
