// Sanity's packages import style sheets, which only browsers read.
import {registerHooks} from 'node:module'

registerHooks({
  load(url, context, next) {
    return url.endsWith('.css') ? {format: 'module', source: '', shortCircuit: true} : next(url, context)
  },
})
