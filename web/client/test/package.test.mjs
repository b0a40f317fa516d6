// What npm would publish, and whether TypeScript reads it.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { limit } from './fake.mjs'

const here = fileURLToPath(new URL('..', import.meta.url))
const { exports, types, dependencies } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'))

test('the package has what its sources make, and no more', limit, () => {
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: here, encoding: 'utf8' }))
  const got = files.map(({ path }) => path).sort()
  const made = readdirSync(join(here, 'src')).flatMap((name) => ['.js', '.d.ts'].map((end) => 'dist/' + name.replace(/\.ts$/, end)))
  assert.deepEqual(got, ['LICENSE', 'README.md', 'package.json', ...made].sort())
  const named = [types, ...Object.values(exports).flatMap((entry) => Object.values(entry))].map((path) => path.slice(2))
  for (const path of named) assert.ok(got.includes(path), path)
  assert.equal(dependencies, undefined)
})

const consumer = `
import { Client, ClosedError, RefusedError, type Event, type Options, type State } from '@notifyd/client'
import { durable, OrderError, type Gap, type Position } from '@notifyd/client/durable'
import { sse } from '@notifyd/client/sse'
import { useClient, useLatest, useSubscription } from '@notifyd/client/react'

interface Message { text: string }
const resuming = new Client('wss://push.example.com/v1/ws', { token: () => '', durable, onError: (error) => console.log(error instanceof OrderError) })
const kept: Position = { seq: 7, epoch: 'k3x9' }
const orders = resuming.subscribe('orders.*', (event) => console.log(event.seq, event.prev, event.time), undefined, { since: kept, onGap: (gap: Gap) => console.log(gap.after, gap.first) })
console.log(orders.position satisfies Position | undefined)
const { seq, duplicate } = await resuming.publish('orders.7', 1, { msgId: 'm', ttl: 60 })
console.log(seq satisfies number | undefined, duplicate)
for await (const event of resuming.events('orders.*', { since: { last: 1 } })) resuming.events('orders.*', { since: event })
const options: Options = { token: async ({ action, topic, data }) => [action, topic, data].join(), strategy: 'ticket' }
const client = new Client('wss://push.example.com/v1/ws', { ...options, onState: (state: State, error?: Error) => console.log(state, error) })
const subscription = client.subscribe<Message>('rooms.*', ({ topic, data }) => console.log(topic, data.text))
await subscription.ready
await client.publish('rooms.42', { text: 'hello' }, { signal: AbortSignal.timeout(1000) }).catch((error: unknown) => {
  if (error instanceof RefusedError) console.log(error.code, error.heals, error.retryAfter)
  if (error instanceof ClosedError) console.log(error.code, error.reason)
})
for await (const event of client.events<Message>('rooms.*')) {
  const text: string = (event satisfies Event<Message>).data.text
  console.log(text)
}
export function useRoom(room: string): string | undefined {
  const client = useClient('wss://push.example.com/v1/ws', options, room)
  const error: Error | undefined = useSubscription<Message>(client, room, ({ data }) => console.log(data.text))
  return error?.message ?? useLatest<Message>(client, room)?.data.text
}
const anywhere = new Client('wss://push.example.com/v1/ws', { token: () => '', sse, transport: 'auto', onTransport: (transport, cause) => console.log(transport === 'sse', cause.message) })
anywhere.close()
// @ts-expect-error a client needs a token function
new Client('wss://push.example.com/v1/ws', {})
// @ts-expect-error there is no such strategy
new Client('wss://push.example.com/v1/ws', { token: () => '', strategy: 'header' })
`

for (const [module, moduleResolution] of [['NodeNext', 'NodeNext'], ['ESNext', 'Bundler']]) {
  test(`a strict TypeScript program compiles against it, by ${moduleResolution}`, { timeout: 120_000 }, (t) => {
    const place = mkdtempSync(join(tmpdir(), 'consumer-'))
    t.after(() => rmSync(place, { recursive: true }))
    mkdirSync(join(place, 'node_modules/@notifyd'), { recursive: true })
    symlinkSync(here, join(place, 'node_modules/@notifyd/client'))
    writeFileSync(join(place, 'package.json'), '{"type":"module"}')
    writeFileSync(join(place, 'main.ts'), consumer)
    const compilerOptions = {
      target: 'ES2022', module, moduleResolution, lib: ['ES2023', 'DOM'], types: [], strict: true, exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true, noEmit: true, skipLibCheck: false,
    }
    writeFileSync(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }))
    try {
      execFileSync(process.execPath, [join(here, 'node_modules/typescript/bin/tsc'), '-p', place], { encoding: 'utf8' })
    } catch (error) {
      assert.fail(error.stdout)
    }
  })
}
