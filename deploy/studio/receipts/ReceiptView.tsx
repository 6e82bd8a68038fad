import {Badge, Box, Card, Code, Flex, Label, Spinner, Stack, Text} from '@sanity/ui'

import type {Seen} from './ask.ts'
import {STATES, type Receipt} from './receipt.ts'

/** What the pane shows. */
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
        <Text muted>{seen.trouble}</Text>
      </Box>
    )
  }
  return <Told receipt={seen.receipt} />
}

function Told({receipt}: {receipt: Receipt}) {
  const {label, tone} = STATES[receipt.state]
  const steps = [
    {title: 'Published', at: receipt.published},
    {title: 'In Clerk', at: receipt.inClerk},
    {title: 'In every session by', at: receipt.inSessionsBy},
  ]
  return (
    <Stack padding={4} space={5}>
      <Card tone={tone} padding={4} radius={2} border aria-live="polite">
        <Stack space={4}>
          <Flex>
            <Badge tone={tone}>{label}</Badge>
          </Flex>
          <Text size={1}>{receipt.headline}</Text>
        </Stack>
      </Card>
      {receipt.nextStep && <Section title="What to do">{[<Text key="next" size={1}>{receipt.nextStep}</Text>]}</Section>}
      <Section title="When">
        {steps.map(({title, at}) => (
          <Flex key={title} gap={3} justify="space-between">
            <Text size={1} muted>
              {title}
            </Text>
            <Text size={1}>{at ? <time dateTime={at}>{clock(at)}</time> : '—'}</Text>
          </Flex>
        ))}
      </Section>
      <Section title="Who">
        {receipt.subjects.map(({subject, state, reason}) => (
          <Stack key={subject} space={3}>
            <Flex gap={3} justify="space-between" align="center">
              <Code size={1} style={{overflowWrap: 'anywhere', whiteSpace: 'normal'}}>
                {subject}
              </Code>
              <Text size={1} muted>
                {state}
              </Text>
            </Flex>
            {reason && (
              <Text size={1} muted>
                {reason}
              </Text>
            )}
          </Stack>
        ))}
      </Section>
    </Stack>
  )
}

function Section({title, children}: {title: string; children: React.ReactNode[]}) {
  if (children.length === 0) return null
  return (
    <Stack space={4}>
      <Label size={1} muted>
        {title}
      </Label>
      {children}
    </Stack>
  )
}

function clock(at: string): string {
  return new Date(at).toLocaleString(undefined, {dateStyle: 'medium', timeStyle: 'medium'})
}
