/** Sanity's actions on documents as mutations, which the sandbox understands: what an editor does by hand. */
import {applyPatches, parsePatch} from '@sanity/diff-match-patch'

type Fields = Record<string, unknown>
type Document = Fields & {_id: string}
export type Mutation = Record<string, Fields>
export type Stored = (id: string) => Promise<Document | undefined>

export async function mutationsOf(action: Fields, stored: Stored): Promise<Mutation[]> {
  const published = String(action.publishedId)
  const draft = String(action.draftId ?? `drafts.${published}`)
  switch (action.actionType) {
    case 'sanity.action.document.create': {
      const document = action.attributes as Document
      return [{[action.ifExists === 'ignore' ? 'createIfNotExists' : 'create']: document}]
    }
    case 'sanity.action.document.edit': {
      // The first edit of a published document begins a draft of it.
      const own = await stored(draft)
      const from = own ? undefined : await stored(published)
      const begun = from ? [{createIfNotExists: without(from, draft)}] : []
      return [...begun, {patch: {id: draft, ...withTexts(action.patch as Fields, own ?? from)}}]
    }
    case 'sanity.action.document.publish': {
      const document = await stored(draft)
      return document ? [{createOrReplace: without(document, published)}, {delete: {id: draft}}] : []
    }
    case 'sanity.action.document.unpublish': {
      const document = await stored(published)
      return document ? [{createIfNotExists: without(document, draft)}, {delete: {id: published}}] : []
    }
    case 'sanity.action.document.delete':
      return [published, ...((action.includeDrafts as string[] | undefined) ?? [])].map((id) => ({delete: {id}}))
    case 'sanity.action.document.discard':
      return [{delete: {id: draft}}]
    case 'sanity.action.document.version.discard':
      return [{delete: {id: String(action.versionId)}}]
    default:
      throw new Error(`the demo does not know the action ${String(action.actionType)}`)
  }
}

/** Return a patch with whole texts in place of differences, which the sandbox does not know. */
function withTexts({diffMatchPatch, ...patch}: Fields, document: Fields = {}): Fields {
  if (!diffMatchPatch) return patch
  const texts = Object.entries(diffMatchPatch as Record<string, string>).map(([path, difference]) => {
    const before = path.split('.').reduce<unknown>((value, name) => (value as Fields | undefined)?.[name], document)
    return [path, applyPatches(parsePatch(difference), String(before ?? ''))[0]]
  })
  return {...patch, set: {...(patch.set as Fields | undefined), ...Object.fromEntries(texts)}}
}

/** Return a copy under another id, without what the document store sets itself. */
function without(document: Document, id: string): Fields {
  const {_rev: _, _updatedAt: __, _system: ___, ...rest} = document
  return {...rest, _id: id}
}
