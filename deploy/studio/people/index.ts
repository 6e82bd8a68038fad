/** In sanity.config.ts: plugins: [peoplePickers({proxyUrl: 'https://YOUR-APP/api/receipts'})] */
import {definePlugin, type InputProps, type StringInputProps} from 'sanity'
import {createElement} from 'react'

import {pickerInput} from './PickerInput.tsx'

/** Fields of these names search Clerk by name, wherever a schema has them. */
export const peoplePickers = definePlugin<{proxyUrl: string}>(({proxyUrl}) => {
  const inputs: Record<string, ReturnType<typeof pickerInput>> = {
    clerkUserId: pickerInput({proxyUrl, kind: 'people'}),
    clerkOrganizationId: pickerInput({proxyUrl, kind: 'organizations'}),
  }
  return {
    name: 'sync-worker-people',
    form: {
      components: {
        input: (props: InputProps) => {
          const input = props.schemaType.jsonType === 'string' ? inputs[String(props.path.at(-1))] : undefined
          return input ? createElement(input, props as StringInputProps) : props.renderDefault(props)
        },
      },
    },
  }
})
