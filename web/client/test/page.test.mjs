// What a page does when its network or its visibility changes. The page is made of the few globals that the client reads,
// and is there before the client is loaded.
import assert from 'node:assert/strict'
import { test } from 'node:test'

const page = new EventTarget()
const document = Object.assign(new EventTarget(), { hidden: false })
const navigator = { onLine: true }
Object.assign(globalThis, { addEventListener: page.addEventListener.bind(page), document })
Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true })
const { dial, limit, of, serve, sleep, until } = await import('./fake.mjs')

const show = (state) => {
  document.hidden = state === 'hidden'
  document.dispatchEvent(new Event('visibilitychange'))
}
const slow = { min: 50_000, max: 50_000 }

/** A client whose server has just gone, and the server that comes in its place. */
async function outage(options) {
  const first = await serve()
  const client = dial(first, options)
  await until(() => client.state === 'connected')
  await first.stop()
  await until(() => client.states.some(([state]) => state === 'waiting'))
  return { client, again: await serve({}, { port: first.port }) }
}

test('a page whose network is back connects at once', limit, async () => {
  navigator.onLine = false
  const { client } = await outage({ backoff: { min: 1, max: 50_000 } })
  await sleep(100)
  assert.equal(client.state, 'waiting', 'it does not try while there is no network')
  navigator.onLine = true
  page.dispatchEvent(new Event('online'))
  await until(() => client.state === 'connected')
})

test('so does a hidden one', limit, async () => {
  show('hidden')
  const { client } = await outage({ backoff: slow })
  page.dispatchEvent(new Event('online'))
  await until(() => client.state === 'connected')
  show('visible')
})

test('a page that comes back into view connects at once', limit, async () => {
  const { client } = await outage({ backoff: slow })
  show('hidden')
  await sleep(50)
  assert.equal(client.state, 'waiting')
  show('visible')
  await until(() => client.state === 'connected')
})

test('a hidden page tries once more, and then seldom', limit, async () => {
  show('hidden')
  let attempts = 0
  const server = await serve({ upgrade: () => (attempts++, 503) })
  const client = dial(server, { backoff: { min: 1, max: 2000 } })
  await until(() => attempts === 2)
  await sleep(500)
  assert.equal(attempts, 2)
  show('visible')
  await until(() => attempts > 4)
  client.close()
})

test('what the server asks to wait is waited for, whatever the page does', limit, async () => {
  const asked = []
  const server = await serve({
    http: (_, response) => {
      asked.push(Date.now())
      if (asked.length > 1) return response.writeHead(201).end('{"ticket":"t"}')
      response.writeHead(503, { 'Retry-After': '1' }).end('{"code":"unavailable","message":"later"}')
    },
  })
  const client = dial(server, { strategy: 'ticket' })
  await until(() => client.state === 'waiting')
  for (let i = 0; i < 20; i++) {
    page.dispatchEvent(new Event('online'))
    await sleep(10)
  }
  await until(() => client.state === 'connected')
  assert.ok(asked[1] - asked[0] >= 980, `${asked[1] - asked[0]} ms`)
})

test('a page that comes back into view finds out whether its connection is alive', limit, async () => {
  const server = await serve({ ping: () => {} })
  const client = dial(server, { timeout: 200 })
  await until(() => client.state === 'connected')
  show('visible')
  await server.await(of('ping'))
  await until(() => server.sockets.length === 2)
  assert.match(client.states.find(([state]) => state === 'waiting')[1].message, /no answer/)
})

test('a closed client does not listen any more', limit, async () => {
  const server = await serve()
  const client = dial(server)
  await until(() => client.state === 'connected')
  client.close()
  page.dispatchEvent(new Event('online'))
  await sleep(50)
  assert.equal(server.sockets.length, 1)
  assert.equal(client.state, 'closed')
})
