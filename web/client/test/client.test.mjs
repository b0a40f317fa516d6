import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Client, ClosedError, RefusedError, UnansweredError } from '../dist/index.js'
import { WebSocket, dial, error, limit, of, serve, sleep, until } from './fake.mjs'

test('publish sends the token and resolves with the ack', limit, async () => {
  const server = await serve()
  const asked = []
  const client = dial(server, { token: (request) => (asked.push(request), 'for one message') })
  await client.publish('rooms.42', { text: 'hello' })
  assert.deepEqual(server.seen, [{ type: 'publish', topic: 'rooms.42', token: 'for one message', data: { text: 'hello' }, id: '1' }])
  assert.deepEqual(asked, [{ action: 'publish', topic: 'rooms.42', data: '{"text":"hello"}' }])
})

test('publishes leave in the order of the calls, however long their tokens take', limit, async () => {
  const server = await serve()
  let n = 0
  const client = dial(server, { token: async () => (await new Promise((r) => setTimeout(r, 30 - 3 * n++)), 'token') })
  await Promise.all(Array.from({ length: 10 }, (_, i) => client.publish('a', i)))
  assert.deepEqual(server.seen.map(({ data }) => data), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
})

test('a publish whose token cannot be had does not stop the next', limit, async () => {
  const server = await serve()
  const client = dial(server, {
    token: ({ data }) => {
      if (data === '1') throw new Error('no token')
      return 'token'
    },
  })
  const first = client.publish('a', 1)
  const second = client.publish('a', 2)
  await assert.rejects(first, /no token/)
  await second
})

test('publish asks for another token when the first has expired, once', limit, async () => {
  const server = await serve({
    publish: (envelope, { say }) => say(envelope.token === 'old' ? error(envelope, 'token_expired') : { type: 'ack', id: envelope.id }),
  })
  const tokens = ['old', 'new', 'old', 'old', 'never']
  const client = dial(server, { token: () => tokens.shift() })
  await client.publish('a', 1)
  await assert.rejects(client.publish('a', 2), { code: 'token_expired' })
  assert.deepEqual(tokens, ['never'])
})

test('publish without an answer is rejected and not sent again', limit, async () => {
  const server = await serve({ publish: () => {} })
  await assert.rejects(dial(server, { timeout: 50 }).publish('a', 1), UnansweredError)
  assert.equal(server.seen.length, 1)
})

test('a publish that is over the server\'s limit is refused here, in bytes of UTF-8', limit, async () => {
  const server = await serve({}, { welcome: { max_message_bytes: 200 } })
  const client = dial(server)
  await client.publish('a', 'x'.repeat(120))
  await assert.rejects(client.publish('a', 'é'.repeat(120)), { code: 'too_large', topic: 'a' })
  assert.equal(server.seen.length, 1)
  assert.equal(client.state, 'connected')
})

test('what was published is what its token was asked for, also if the value changes meanwhile', limit, async () => {
  const server = await serve()
  const data = { n: 1 }
  const published = dial(server, { token: async ({ data }) => (await sleep(20), data) }).publish('a', data)
  data.n = 2
  await published
  assert.deepEqual(server.seen[0].data, { n: 1 })
  assert.equal(server.seen[0].token, '{"n":1}')
})

test('a signal that is used for many publishes keeps no listeners', limit, async () => {
  const client = dial(await serve())
  const { signal } = new AbortController()
  let listeners = 0
  const { addEventListener, removeEventListener } = signal
  signal.addEventListener = (...args) => (listeners++, addEventListener.apply(signal, args))
  signal.removeEventListener = (...args) => (listeners--, removeEventListener.apply(signal, args))
  await Promise.all([1, 2, 3].map((n) => client.publish('a', n, { signal })))
  await until(() => listeners === 0)
})

test('a token provider that gives nothing is told so', limit, async () => {
  const server = await serve()
  await assert.rejects(dial(server, { token: () => undefined }).publish('a', 1), { code: 'token_missing' })
  assert.equal(server.seen.length, 0)
})

test('publish whose connection is lost is rejected and not sent again', limit, async () => {
  const server = await serve({ publish: (_, { socket }) => socket.terminate() })
  const client = dial(server)
  await assert.rejects(client.publish('a', 1), UnansweredError)
  await until(() => client.state === 'connected')
  assert.equal(server.seen.filter(of('publish')).length, 1)
})

test('publish waits for a connection until its signal aborts', limit, async () => {
  const server = await serve()
  const { port } = server
  await server.stop()
  const client = dial(server)
  const abort = new AbortController()
  const aborted = client.publish('a', 1, { signal: abort.signal })
  const waits = client.publish('a', 2)
  abort.abort(new Error('enough'))
  await assert.rejects(aborted, /enough/)
  const again = await serve({}, { port })
  await waits
  assert.deepEqual(again.seen.map(({ data }) => data), [2])
})

test('what is no JSON value is refused without a request', limit, async () => {
  await assert.rejects(dial(await serve()).publish('a', undefined), TypeError)
})

test('events reach the handlers of their pattern', limit, async () => {
  const server = await serve()
  const client = dial(server)
  const got = []
  await client.subscribe('rooms.*', (event) => got.push(['pattern', event])).ready
  await client.subscribe('rooms.42', (event) => got.push(['topic', event])).ready
  const [{ say }] = server.sockets
  say({ type: 'event', topic: 'rooms.42', pattern: 'rooms.*', data: 1 })
  say({ type: 'event', topic: 'rooms.42', data: 2 })
  say({ type: 'event', topic: 'rooms.43', data: 3 })
  say({ type: 'event', topic: 'rooms.44', pattern: 'rooms.*', data: null })
  await until(() => got.length === 3)
  assert.deepEqual(got, [
    ['pattern', { topic: 'rooms.42', pattern: 'rooms.*', data: 1 }],
    ['topic', { topic: 'rooms.42', data: 2 }],
    ['pattern', { topic: 'rooms.44', pattern: 'rooms.*', data: null }],
  ])
})

test('several subscriptions to one pattern are one at the server, until the last ends', limit, async () => {
  const server = await serve()
  const client = dial(server)
  const got = []
  const first = client.subscribe('a', (event) => got.push(['first', event.data]))
  const second = client.subscribe('a', (event) => got.push(['second', event.data]))
  await Promise.all([first.ready, second.ready])
  server.sockets[0].say({ type: 'event', topic: 'a', data: 1 })
  await until(() => got.length === 2)
  first.unsubscribe()
  first.unsubscribe()
  server.sockets[0].say({ type: 'event', topic: 'a', data: 2 })
  await until(() => got.length === 3)
  assert.deepEqual(got, [['first', 1], ['second', 1], ['second', 2]])
  second.unsubscribe()
  await server.await(of('unsubscribe'))
  assert.deepEqual(server.seen.map(({ type }) => type), ['subscribe', 'unsubscribe'])
})

test('a handler that throws is reported and disturbs nobody', limit, async () => {
  const server = await serve()
  const client = dial(server)
  const got = []
  client.subscribe('a', () => {
    throw new Error('handler')
  })
  await client.subscribe('a', (event) => got.push(event.data)).ready
  server.sockets[0].say({ type: 'event', topic: 'a', data: 1 })
  await until(() => got.length === 1)
  assert.match(client.errors[0].message, /handler/)
})

test('an onState that throws is reported and ends nothing', limit, async () => {
  const server = await serve()
  const client = dial(server, {
    onState: () => {
      throw new Error('onState')
    },
  })
  await client.publish('a', 1)
  server.sockets[0].socket.terminate()
  await until(() => server.sockets.length === 2)
  await client.publish('a', 2)
  assert.match(client.errors[0].message, /onState/)
})

test('an iterator yields events, and leaving it unsubscribes', limit, async () => {
  const server = await serve({
    subscribe: ({ id }, { say }) => {
      say({ type: 'ack', id, exp: 1 })
      for (const data of [1, 2, 3]) say({ type: 'event', topic: 'a', data })
    },
  })
  const got = []
  for await (const event of dial(server).events('a')) {
    got.push(event.data)
    if (event.data === 2) break
  }
  assert.deepEqual(got, [1, 2])
  await server.await(of('unsubscribe'))
})

test('an iterator whose consumer is slow drops the oldest and says so', limit, async () => {
  const server = await serve({
    subscribe: ({ id }, { say }) => {
      say({ type: 'ack', id, exp: 1 })
      for (let data = 0; data < 10; data++) say({ type: 'event', topic: 'a', data })
    },
  })
  const client = dial(server, { buffer: 3 })
  const got = []
  for await (const event of client.events('a')) {
    await until(() => client.errors.length >= 6)
    got.push(event.data)
    if (event.data === 9) break
  }
  assert.deepEqual(got.slice(-3), [7, 8, 9])
})

test('an iterator has the events from its making on, and gives what waits before its end', limit, async () => {
  const server = await serve()
  const client = dial(server)
  const events = client.events('a')
  await server.await(of('subscribe'))
  for (const data of [1, 2]) server.sockets[0].say({ type: 'event', topic: 'a', data })
  const [first, second] = await Promise.all([events.next(), events.next()])
  assert.deepEqual([first.value.data, second.value.data], [1, 2])
  const waits = [events.next(), events.next()]
  server.sockets[0].say({ type: 'event', topic: 'a', data: 3 })
  assert.equal((await waits[0]).value.data, 3)
  client.close()
  assert.deepEqual(await waits[1], { value: undefined, done: true })
})

test('an iterator can be ended from outside while its loop waits', limit, async () => {
  const server = await serve()
  const events = dial(server).events('a')
  const loop = (async () => {
    for await (const _ of events) assert.fail()
  })()
  await server.await(of('subscribe'))
  await events.return()
  await loop
  await server.await(of('unsubscribe'))
})

test('a refusal for good ends the subscription and is thrown into its iterator', limit, async () => {
  const server = await serve({ subscribe: (envelope, { say }) => say(error(envelope, 'forbidden')) })
  const client = dial(server)
  const ended = []
  const refused = client.subscribe('a', () => {}, (e) => ended.push(e))
  await assert.rejects(refused.ready, { code: 'forbidden' })
  assert.equal(ended[0].code, 'forbidden')
  await assert.rejects(async () => {
    for await (const _ of client.events('b')) assert.fail()
  }, { code: 'forbidden' })
  assert.equal(server.seen.length, 2)
})

test('a first subscribe whose token has expired asks for another, and then gives up', limit, async () => {
  let given = 0
  const server = await serve({ subscribe: (envelope, { say }) => say(error(envelope, 'token_expired')) })
  const client = dial(server, { token: () => `token ${++given}` })
  await assert.rejects(client.subscribe('a', () => {}, () => {}).ready, { code: 'token_expired' })
  assert.equal(given, 2)
})

test('a token provider that fails for a while does not end a subscription', limit, async () => {
  let n = 0
  const server = await serve()
  const client = dial(server, {
    token: () => {
      if (++n < 6) throw new TypeError('fetch failed')
      return 'token'
    },
  })
  await client.subscribe('a', () => {}).ready
  assert.equal(n, 6)
})

test('a subscription gets a new token before the old one expires, once for each notice', limit, async () => {
  const exp = () => Math.floor(Date.now() / 1000) + 1
  let n = 0
  const server = await serve({
    subscribe: ({ id, topic }, { say }) => {
      say({ type: 'ack', id, exp: exp() })
      if (++n <= 3) say({ type: 'expiring', topic, exp: 1000 + n })
      else for (let i = 0; i < 5; i++) say({ type: 'expiring', topic, exp: 1003 })
    },
  })
  let given = 0
  dial(server, { token: () => `token ${++given}` }).subscribe('a', () => {})
  await server.await(of('subscribe'), 4)
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.deepEqual(server.seen.map(({ token }) => token), ['token 1', 'token 2', 'token 3', 'token 4'])
})

for (const [what, end] of Object.entries({
  expired: { type: 'expired', topic: 'a' },
  'an error without id': { type: 'error', topic: 'a', code: 'token_revoked', message: '' },
})) {
  test(`a subscription that the server ended (${what}) begins again with another token`, limit, async () => {
    const server = await serve()
    let given = 0
    const client = dial(server, { token: () => `token ${++given}` })
    await client.subscribe('a', () => {}).ready
    server.sockets[0].say(end)
    await server.await(of('subscribe'), 2)
    assert.deepEqual(server.seen.map(({ token }) => token), ['token 1', 'token 2'])
  })
}

test('a publish leaves after the subscribes that were called before it, however long their tokens take', limit, async () => {
  const server = await serve()
  const client = dial(server, { token: async ({ action }) => (action === 'subscribe' && (await sleep(30)), 'token') })
  const said = () => server.sockets.at(-1).seen.map(({ type, topic }) => `${type} ${topic}`)
  await until(() => client.state === 'connected')
  client.subscribe('a', () => {})
  client.subscribe('b', () => {})
  await client.publish('a', 1)
  assert.deepEqual(said(), ['subscribe a', 'subscribe b', 'publish a'])
  server.sockets[0].socket.terminate()
  await until(() => client.states.some(([state]) => state === 'waiting'))
  await client.publish('a', 2)
  assert.deepEqual(said(), ['subscribe a', 'subscribe b', 'publish a'])
})

test('a publish does not wait for a subscribe that will not come', limit, async () => {
  const server = await serve()
  const never = new Promise(() => {})
  const client = dial(server, {
    token: ({ action, topic }) => {
      if (action === 'publish') return 'token'
      if (topic === 'fails') throw new Error('no token')
      return never
    },
    backoff: { min: 50_000, max: 50_000 },
  })
  client.subscribe('fails', () => {})
  const left = client.subscribe('left', () => {})
  const publishes = [client.publish('a', 1)]
  await until(() => client.errors.length > 0)
  left.unsubscribe()
  await Promise.all(publishes)
  client.subscribe('hangs', () => {})
  const { signal } = new AbortController()
  await assert.rejects(client.publish('a', 2, { signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' })
  const waits = client.publish('a', 3, { signal })
  client.close()
  await assert.rejects(waits, { code: 1000 })
  assert.deepEqual(server.seen.filter(of('publish')).map(({ data }) => data), [1])
})

for (const hour of [-3600, 3600]) {
  test(`a token is replaced by the server's clock, which is ${hour} s ahead`, limit, async () => {
    const now = () => Date.now() / 1000 + hour
    const server = await serve({}, { welcome: { time: new Date(now() * 1000).toISOString() } })
    let given = 0
    const client = dial(server, { strategy: 'first-message', token: () => `token ${++given}` })
    await client.subscribe('a', () => {}).ready
    server.sockets[0].say({ type: 'expiring', exp: now() + 0.5 })
    await server.await(of('auth'), 2)
    server.sockets[0].say({ type: 'expiring', exp: now() + 3600 }) // not for a quarter of an hour
    await sleep(50)
    assert.equal(given, 2)
  })
}

test('subscriptions come along to the next connection', limit, async () => {
  const server = await serve()
  const client = dial(server)
  const got = []
  await client.subscribe('a', (event) => got.push(event.data)).ready
  const gone = client.subscribe('gone', () => {})
  await gone.ready
  gone.unsubscribe()
  for (let i = 0; i < 5; i++) {
    server.sockets.at(-1).socket.terminate()
    await server.await((envelope) => envelope.topic === 'a' && envelope.type === 'subscribe', i + 2)
    server.sockets.at(-1).say({ type: 'event', topic: 'a', data: i })
    await until(() => got.at(-1) === i)
  }
  assert.equal(server.seen.filter(({ topic, type }) => topic === 'gone' && type === 'subscribe').length, 1)
  assert.deepEqual(got, [0, 1, 2, 3, 4])
})

test('first-message: auth comes first, subscribes carry no token, and a notice refreshes it', limit, async () => {
  const server = await serve()
  let given = 0
  const client = dial(server, { strategy: 'first-message', token: ({ action }) => `${action} ${++given}` })
  await client.subscribe('a', () => {}).ready
  server.sockets[0].say({ type: 'expiring', exp: 1 })
  await server.await(of('auth'), 2)
  assert.deepEqual(server.seen.map(({ type, token }) => [type, token]),
    [['auth', 'connect 1'], ['subscribe', undefined], ['auth', 'connect 2']])
})

test('first-message: an auth that heals is tried again', limit, async () => {
  let n = 0
  const server = await serve({
    auth: (envelope, { say }) => say(++n < 6 ? error(envelope, 'token_not_yet_valid') : { type: 'ack', id: envelope.id }),
  })
  const client = dial(server, { strategy: 'first-message' })
  await until(() => client.state === 'connected')
  assert.equal(n, 6)
})

test('a server that says no welcome, or nonsense, is left and tried again', limit, async () => {
  let n = 0
  const server = await serve({
    connect: ({ socket }) => {
      if (++n > 2) return true
      if (n === 2) socket.send('<html>')
      return false
    },
  })
  const client = dial(server, { timeout: 100 })
  await until(() => client.state === 'connected')
  assert.equal(n, 3)
})

test('a server that falls silent is left', limit, async () => {
  let mute = true
  const server = await serve({ ping: ({ id }, { say }) => mute || say({ type: 'pong', id }) }, { welcome: { ping_interval: 0.05 } })
  const client = dial(server)
  await until(() => server.sockets.length === 2)
  mute = false
  const [, error] = client.states.find(([state]) => state === 'waiting')
  assert.match(error.message, /no answer/)
  const last = server.sockets.length
  await server.await(of('ping'), 8)
  assert.ok(server.sockets.length <= last + 1)
})

test('close ends the client, its subscriptions and what waits', limit, async () => {
  const server = await serve({ publish: () => {} })
  const client = dial(server)
  const ended = []
  await client.subscribe('a', () => {}, (e) => ended.push(e)).ready
  const waits = client.publish('a', 1)
  await server.await(of('publish'))
  const closed = new Promise((resolve) => server.sockets[0].socket.once('close', resolve))
  client.close()
  client.close()
  await assert.rejects(waits, UnansweredError)
  assert.equal(client.state, 'closed')
  assert.equal(ended.length, 1)
  assert.equal(await closed, 1000)
  await assert.rejects(client.publish('a', 2), ClosedError)
})

test('close during the handshake leaves no connection', limit, async () => {
  const server = await serve()
  const client = dial(server)
  client.close()
  const other = dial(server, { token: () => 'other' })
  await other.publish('a', 1)
  await until(() => server.sockets.filter(({ socket }) => socket.readyState === WebSocket.OPEN).length === 1)
  assert.equal(client.state, 'closed')
})

test('a URL that is none, and a platform without WebSocket, are errors at once', limit, () => {
  assert.throws(() => new Client('push.example.com', { token: () => '', WebSocket }), TypeError)
  const { WebSocket: native } = globalThis
  delete globalThis.WebSocket
  try {
    assert.throws(() => new Client('ws://127.0.0.1/v1/ws', { token: () => '' }), /no WebSocket/)
  } finally {
    if (native) globalThis.WebSocket = native
  }
})

test('a refresh that fails after the client was closed is not tried again', limit, async () => {
  const server = await serve()
  let asked = 0
  let fail
  const client = dial(server, {
    strategy: 'first-message',
    token: () => (++asked === 1 ? 'token' : new Promise((_, reject) => (fail = reject))),
  })
  await server.await(of('auth'))
  await until(() => client.state === 'connected')
  server.sockets[0].say({ type: 'expiring', exp: Math.floor(Date.now() / 1000) + 8 })
  await until(() => asked === 2)
  client.close()
  fail(new Error('the provider is offline'))
  await new Promise((resolve) => setTimeout(resolve, 3500)) // the next try would come within 3 s
  assert.equal(asked, 2)
})
