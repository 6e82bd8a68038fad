import {Autocomplete, Avatar, Box, Card, Flex, Stack, Text} from '@sanity/ui'
import {useEffect, useMemo, useState} from 'react'
import {set, unset, useClient, type StringInputProps} from 'sanity'

import {Directory, type Named} from './ask.ts'
import {titleOf, type Kind, type Listing} from './listing.ts'

export interface PickerOptions {
  /** The route of your app that uses proxy/, as for the receipts. */
  proxyUrl: string
  kind: Kind
}

interface Option {
  value: string
  listing: Listing
}

const PAUSE = 250
const LOADING = 'loading'

/** One directory for each dataset and proxy, so that all fields share one pass, and the names of a form one request. */
const directories = new Map<string, Directory>()

/** An input that searches by name and stores the id alone. While the worker cannot be reached it is a text field. */
export function pickerInput({proxyUrl, kind}: PickerOptions) {
  return function PickerInput(props: StringInputProps) {
    const {id, onChange, readOnly, renderDefault, value} = {...props, id: props.elementProps.id}
    const directory = useDirectory(proxyUrl)
    const [chosen, setChosen] = useState<Listing | undefined>()
    const stored = useName(directory, kind, value, chosen)
    const [text, setText] = useState<string | null>(null)
    const {options, loading, reachable} = useSearch(directory, kind, text)

    function choose(id: string) {
      setChosen(options.find((one) => one.value === id)?.listing)
      onChange(id ? set(id) : unset())
    }

    if (!reachable || (value && stored === undefined)) return renderDefault(props)
    return (
      <Stack gap={3}>
        <Autocomplete<Option>
          id={id}
          value={value ?? ''}
          options={options}
          loading={loading}
          readOnly={readOnly}
          filterOption={() => true}
          openButton={false}
          placeholder={kind === 'people' ? 'Search by name, e-mail address or id' : 'Search by name, slug or id'}
          onQueryChange={setText}
          onChange={choose}
          renderOption={({listing}) => (
            <Card as="button" padding={3}>
              <Entry listing={listing} />
            </Card>
          )}
          renderValue={(id) => id}
        />
        {value && stored && <Entry listing={stored === LOADING ? blank(value) : stored} />}
        {value && stored === null && (
          <Text size={1} muted>
            {kind === 'people' ? 'No such person in Clerk any more.' : 'No such organization in Clerk any more.'}
          </Text>
        )}
      </Stack>
    )
  }
}

/** Takes the place of a name that is not known yet, so that the form does not move under the pointer. */
function blank(id: string): Listing {
  return {id, name: '…', email: '', image: ''}
}

function Entry({listing}: {listing: Listing}) {
  const title = titleOf(listing)
  return (
    <Flex gap={3} align="center">
      <Avatar size={1} src={listing.image || undefined} initials={title.slice(0, 1).toUpperCase()} />
      <Box flex={1}>
        <Text size={1}>{title}</Text>
      </Box>
      {listing.email && listing.email !== title && (
        <Text size={1} muted>
          {listing.email}
        </Text>
      )}
    </Flex>
  )
}

function useDirectory(url: string): Directory {
  const client = useClient({apiVersion: '2025-02-19'})
  return useMemo(() => {
    const {projectId, dataset} = client.config()
    const key = JSON.stringify([url, projectId, dataset])
    const known = directories.get(key) ?? new Directory(url, client)
    directories.set(key, known)
    return known
  }, [client, url])
}

/** Return the name of a stored id; `chosen` was found by a search, and is not asked for again. */
function useName(
  directory: Directory,
  kind: Kind,
  id: string | undefined,
  chosen: Listing | undefined,
): Named | typeof LOADING {
  const [named, setNamed] = useState<Named | typeof LOADING>(LOADING)
  const known = chosen?.id === id ? chosen : undefined
  useEffect(() => {
    let current = true
    setNamed(LOADING)
    if (id && !known) void directory.name(kind, id).then((found) => current && setNamed(found))
    return () => {
      current = false
    }
  }, [directory, kind, id, known])
  return known ?? named
}

/** Search what was typed, once the editor pauses. */
function useSearch(directory: Directory, kind: Kind, text: string | null) {
  const [seen, setSeen] = useState({options: [] as Option[], loading: false, reachable: true})
  useEffect(() => {
    let current = true
    if (!text?.trim()) return
    const timer = setTimeout(async () => {
      setSeen((before) => ({...before, loading: true}))
      const found = await directory.search(kind, text.trim())
      if (!current) return
      const options = (found ?? []).map((listing) => ({value: listing.id, listing}))
      setSeen({options, loading: false, reachable: found !== null})
    }, PAUSE)
    return () => {
      current = false
      clearTimeout(timer)
    }
  }, [directory, kind, text])
  return seen
}
