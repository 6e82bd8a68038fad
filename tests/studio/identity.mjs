// Runs a kit's TypeScript without its packages: of these few, a kit only calls functions that return what they are given.
import {registerHooks} from 'node:module'

const GIVEN_BACK = {
  '@sanity/functions': ['documentEventHandler'],
  '@sanity/blueprints': ['defineBlueprint', 'defineDocumentFunction'],
  sanity: ['defineType', 'defineField', 'defineArrayMember'],
}

registerHooks({
  resolve(specifier, context, next) {
    const names = GIVEN_BACK[specifier]
    if (!names) return next(specifier, context)
    const source = names.map((name) => `export const ${name} = (given) => given`).join('\n')
    return {url: `data:text/javascript,${encodeURIComponent(source)}`, format: 'module', shortCircuit: true}
  },
})
