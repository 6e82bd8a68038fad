// What a query sees: all documents of one perspective, sorted by `_id`, with hash indexes that are built on demand.
//
// groq-js checks every document against every filter, which is slow with 100,000 of them. A view finds the few that can
// match; groq-js still evaluates the whole filter on those, so an index may return too many but never too few.
// `rewrite.mjs` decides which expressions use an index.

const byId = (a, b) => (a._id < b._id ? -1 : a._id > b._id ? 1 : 0)

/** The position of the first document whose `_id` is not below `id`. */
export function lowerBound(docs, id) {
  let low = 0
  let high = docs.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (docs[middle]._id < id) low = middle + 1
    else high = middle
  }
  return low
}

function insert(docs, doc) {
  const at = lowerBound(docs, doc._id)
  const isThere = docs[at]?._id === doc._id
  docs.splice(at, isThere ? 1 : 0, doc)
}

function remove(docs, id) {
  const at = lowerBound(docs, id)
  if (docs[at]?._id === id) docs.splice(at, 1)
}

/** The sorted union of several sorted arrays. */
export function union(arrays) {
  if (arrays.length === 1) return arrays[0]
  return [...new Set(arrays.flat())].sort(byId)
}

const NOTHING = []

/** Documents by the keys that `keysOf(doc)` returns. */
class Index {
  buckets = new Map()

  constructor(keysOf, docs) {
    this.keysOf = keysOf
    for (const doc of docs) {
      // `docs` is sorted, so appending keeps each bucket sorted.
      for (const key of keysOf(doc)) this.bucket(key).push(doc)
    }
  }

  bucket(key) {
    let docs = this.buckets.get(key)
    if (!docs) this.buckets.set(key, (docs = []))
    return docs
  }

  add(doc) {
    for (const key of this.keysOf(doc)) insert(this.bucket(key), doc)
  }

  remove(doc) {
    for (const key of this.keysOf(doc)) remove(this.buckets.get(key) ?? NOTHING, doc._id)
  }

  find(keys) {
    const found = []
    for (const key of new Set(keys)) {
      const docs = this.buckets.get(key)
      if (docs?.length) found.push(docs)
    }
    return found.length ? union(found) : NOTHING
  }
}

const INDEXES = 200

class View {
  docs = new Map()
  sorted = []
  indexes = new Map()

  /** The index called `name`, built from `keysOf` on first use. */
  index(name, keysOf) {
    let index = this.indexes.get(name)
    if (!index && this.indexes.size >= INDEXES) this.indexes.clear()
    if (!index) this.indexes.set(name, (index = new Index(keysOf, this.sorted)))
    return index
  }

  put(doc) {
    const before = this.docs.get(doc._id)
    this.docs.set(doc._id, doc)
    insert(this.sorted, doc)
    for (const index of this.indexes.values()) {
      if (before) index.remove(before)
      index.add(doc)
    }
  }

  drop(id) {
    const before = this.docs.get(id)
    if (!before) return
    this.docs.delete(id)
    remove(this.sorted, id)
    for (const index of this.indexes.values()) index.remove(before)
  }

  /** Replace all documents; far cheaper than one by one when most of them are new. */
  fill(docs) {
    this.docs = new Map(docs.map((doc) => [doc._id, doc]))
    this.sorted = [...docs].sort(byId)
    this.indexes.clear()
  }
}

const LAYER = /^(drafts\.|versions\.[^.]+\.)/

const layerOf = (id) => LAYER.exec(id)?.[0] ?? ''

/** The document with published id `id` as a perspective sees it; `find(id)` reads the dataset. */
const PERSPECTIVES = {
  raw: null,
  published: (id, find) => find(id),
  // Without a token only published documents with an undotted id are readable.
  anonymous: (id, find) => (id.includes('.') ? undefined : find(id)),
}

function stacked(layers) {
  return (id, find) => {
    for (const layer of layers) {
      const doc = find(layer + id)
      if (doc) return {...doc, _id: id, _originalId: doc._id}
    }
    return undefined
  }
}

function perspective(name) {
  if (name in PERSPECTIVES) return PERSPECTIVES[name]
  const layers = name.split(',').map((part) => {
    if (part === 'published') return ''
    return part === 'drafts' || part === 'previewDrafts' ? 'drafts.' : `versions.${part}.`
  })
  return stacked([...layers, ''])
}

const MANY = 1000

/** All documents of the query index, and the views on them. */
export class Dataset {
  docs = new Map()
  views = new Map()

  view(name) {
    let view = this.views.get(name)
    if (!view) {
      view = new View()
      this.views.set(name, view)
      this.refill(name, view)
    }
    return view
  }

  refill(name, view) {
    const see = perspective(name)
    if (!see) return view.fill([...this.docs.values()])
    const find = (id) => this.docs.get(id)
    const ids = new Set([...this.docs.keys()].map((id) => id.slice(layerOf(id).length)))
    return view.fill([...ids].map((id) => see(id, find)).filter(Boolean))
  }

  /** Put `puts` (documents) and drop `drops` (ids). */
  apply(puts, drops) {
    for (const doc of puts) this.docs.set(doc._id, doc)
    for (const id of drops) this.docs.delete(id)
    const changed = [...puts.map((doc) => doc._id), ...drops]
    for (const [name, view] of this.views) {
      if (changed.length > MANY) this.refill(name, view)
      else for (const id of changed) this.refresh(perspective(name), view, id)
    }
  }

  refresh(see, view, changed) {
    const find = (id) => this.docs.get(id)
    const id = see ? changed.slice(layerOf(changed).length) : changed
    const doc = see ? see(id, find) : find(id)
    if (doc) view.put(doc)
    else view.drop(id)
  }

  clear() {
    this.docs.clear()
    this.views.clear()
  }
}
