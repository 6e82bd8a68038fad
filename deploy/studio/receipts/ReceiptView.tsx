import {Badge, Box, Card, Flex, Label, Spinner, Text} from '@sanity/ui'
import type {ReactNode} from 'react'

import type {Seen} from './ask.ts'
import {STATES, type Receipt} from './receipt.ts'

/** What the pane shows. Of @sanity/ui only what versions 3 and 4 have in common. */
export function ReceiptView({seen}: {seen: Seen | null}) {
  if (!seen) {
    return (
      <Flex padding={5} justify="center">
        <Spinner muted />
      </Flex>
    )
  }
  if (!seen.receipt) {
    return (
      <Box padding={4}>
        <Text size={1} muted>
          {seen.trouble}
        </Text>
      </Box>
    )
  }
  return <Details receipt={seen.receipt} />
}

function Details({receipt}: {receipt: Receipt}) {
  const {label, tone} = STATES[receipt.state]
  return (
    <Flex direction="column" padding={4} gap={5}>
      <Card tone={tone} padding={4} radius={2} border aria-live="polite">
        <Flex direction="column" gap={4} align="flex-start">
          <Badge tone={tone}>{label}</Badge>
          <Text size={1}>{receipt.headline}</Text>
        </Flex>
      </Card>
      {receipt.nextStep && (
        <Section title="What to do">
          <Text size={1}>{receipt.nextStep}</Text>
        </Section>
      )}
      <Section title="When">
        <Line left="Published" right={clock(receipt.published)} />
        <Line left="In Clerk" right={clock(receipt.inClerk)} />
        <Line left="In every session by" right={clock(receipt.inSessionsBy)} />
      </Section>
      {receipt.subjects.length > 0 && (
        <Section title="Who">
          {receipt.subjects.map(({subject, state, reason}) => (
            <Flex key={subject} direction="column" gap={3}>
              <Line left={<code style={{overflowWrap: 'anywhere'}}>{subject}</code>} right={state} />
              {reason && (
                <Text size={1} muted>
                  {reason}
                </Text>
              )}
            </Flex>
          ))}
        </Section>
      )}
    </Flex>
  )
}

function Section({title, children}: {title: string; children: ReactNode}) {
  return (
    <Flex direction="column" gap={4}>
      <Label size={1} muted>
        {title}
      </Label>
      {children}
    </Flex>
  )
}

function Line({left, right}: {left: ReactNode; right: ReactNode}) {
  return (
    <Flex gap={3} justify="space-between">
      <Text size={1} muted>
        {left}
      </Text>
      <Text size={1}>{right}</Text>
    </Flex>
  )
}

function clock(at: string | null): ReactNode {
  if (!at) return '—'
  return <time dateTime={at}>{new Date(at).toLocaleString(undefined, {dateStyle: 'medium', timeStyle: 'medium'})}</time>
}
