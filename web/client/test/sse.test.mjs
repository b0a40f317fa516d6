// Server-Sent Events in the place of a WebSocket, against a server that does what a test says.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClosedError, RefusedError, UnansweredError } from '../dist/index.js'
import { durable } from '../dist/durable.js'
import { sse } from '../dist/sse.js'
import { dial, limit, serve, sleep, until } from './fake.mjs'

/** A server that answers over HTTP. on.events(stream) and on.publish(line) may say something else than yes. */
async function serveEvents(on = {}) {
  const streams = []
  const lines = []
  const requests = []
  const http = (request, response) => {
    const { pathname, searchParams: query } = new URL(request.url, 'http://host')
    requests.push(`${request.method} ${pathname}`)
    if (on.down?.()) return response.destroy()
    const problem = (status, code) => {
      response.writeHead(status, { 'Content-Type': 'application/problem+json' })
      response.end(JSON.stringify({ title: '', status, code, message: 'for a test' }))
    }
    if (pathname === '/v1/openapi.json') return response.end()
    if (pathname === '/v1/tickets') return response.end('{"ticket":"t"}')
    if (pathname === '/v1/publish') {
      let body = ''
      request.on('data', (data) => (body += data))
      return void request.on('end', () => {
        const whole = body.split('\n').slice(0, -1).map((line) => JSON.parse(line))
        lines.push(whole)
        if (on.refuse) return problem(...on.refuse)
        response.end(whole.map((line) => JSON.stringify(on.publish?.(line) ?? { ok: true, id: line.id }) + '\n').join(''))
      })
    }
    const stream = {
      topics: query.getAll('topic'),
      since: query.get('since'),
      token: request.headers.authorization?.replace('Bearer ', ''),
      over: false,
      problem,
      say: (envelope, id) => {
        const name = envelope.type === 'event' ? '' : `event: ${envelope.type ?? 'close'}\n`
        response.write(`${name}${id ? `id: ${id}\n` : ''}data: ${JSON.stringify(envelope)}\n\n`)
      },
      event: (topic, data, rest, pattern) => stream.say({ type: 'event', topic, ...(pattern && { pattern }), data, ...rest }, rest?.seq && `e.${rest.seq}`),
      ack: (topic, rest) => stream.say({ type: 'ack', id: topic, exp: 2e9, ...rest }),
      begin: () => response.writeHead(200, { 'Content-Type': 'text/event-stream' }) && stream.say({ type: 'welcome', node: 'n', ping_interval: 25, max_message_bytes: 65536, ...on.welcome }),
      comment: () => response.write(':\n\n'),
      cut: () => response.destroy(),
    }
    response.on('close', () => (stream.over = true))
    streams.push(stream)
    if (on.events?.(stream)) return
    stream.begin()
    for (const topic of stream.topics) stream.ack(topic)
  }
  const server = await serve({ http, upgrade: () => on.websocket?.() })
  return Object.assign(server, { streams, publishes: lines, requests })
}

const over = (server, options) => dial(server, { sse, transport: 'sse', ...options })

test('where a WebSocket cannot be opened, events come over HTTP, and the client says so', limit, async () => {
  const server = await serveEvents({ websocket: () => 403 })
  const told = []
  const client = dial(server, { sse, onTransport: (transport, cause) => told.push([transport, cause]) })
  const got = []
  await Promise.all(['a', 'b.*'].map((topic) => client.subscribe(topic, ({ topic, data }) => got.push([topic, data])).ready))
  assert.deepEqual(told.map(([transport, cause]) => [transport, cause instanceof ClosedError, cause.code]), [['sse', true, 1006]])
  assert.deepEqual(server.streams.map(({ topics, token }) => [topics, token]), [[['a', 'b.*'], 'token']])
  server.streams[0].event('a', 1)
  server.streams[0].event('b.x', 'zwei\n', {}, 'b.*')
  await until(() => got.length === 2)
  assert.deepEqual(got, [['a', 1], ['b.x', 'zwei\n']])
  // It stays so.
  server.streams[0].cut()
  await until(() => server.streams.length === 2)
  assert.equal(told.length, 1)
})

test('a server that is away is no reason to give up WebSockets', limit, async () => {
  let away = true
  const server = await serveEvents({ websocket: () => away && 503, down: () => away })
  const told = []
  const client = dial(server, { sse, onTransport: (transport) => told.push(transport) })
  await until(() => server.requests.length > 3)
  away = false
  await until(() => client.state === 'connected')
  await client.publish('a', 1)
  assert.deepEqual(told, [])
  assert.equal(server.seen.length, 1)
})

test('a fallback that brings no events either goes back to WebSockets', limit, async () => {
  let refuse = true
  const server = await serveEvents({ websocket: () => refuse && 403, events: ({ problem }) => (problem(401, 'token_invalid'), true) })
  const told = []
  const client = dial(server, { sse, strategy: 'subprotocol', onTransport: (transport) => told.push(transport) })
  client.subscribe('a', () => {})
  await until(() => told.length >= 2)
  refuse = false
  await until(() => server.seen.length > 0)
  assert.deepEqual(told.slice(0, 2), ['sse', 'websocket'])
  assert.equal(client.state, 'connected')
})

test('transport websocket means that, and without a WebSocket there is SSE alone', limit, async () => {
  const server = await serveEvents({ websocket: () => 403 })
  const client = dial(server, { sse, transport: 'websocket' })
  await until(() => client.states.length > 8)
  assert.deepEqual(server.requests, [])
  const none = dial(server, { sse, WebSocket: undefined })
  if (globalThis.WebSocket) return
  await none.subscribe('a', () => {}).ready
})

test('a later subscribe joins by a new request, and the old one goes on until then', limit, async () => {
  let hold = false
  const server = await serveEvents({ events: () => hold })
  const client = over(server)
  const got = []
  await client.subscribe('a', ({ data }) => got.push(data)).ready
  hold = true
  const later = client.subscribe('b', ({ data }) => got.push(data))
  await until(() => server.streams.length === 2)
  const [first, second] = server.streams
  assert.deepEqual(second.topics, ['a', 'b'])
  first.event('a', 1)
  await until(() => got.length === 1)
  second.begin()
  second.ack('b')
  await later.ready
  first.event('a', 2)
  await until(() => got.length === 2)
  assert.equal(first.over, false)
  second.ack('a')
  await until(() => first.over)
  second.event('a', 3)
  second.event('b', 4)
  await until(() => got.length === 4)
  assert.deepEqual(got, [1, 2, 3, 4])
})

test('a durable topic has a request of its own, and its next one goes on from its position', limit, async () => {
  let n = 0
  const server = await serveEvents({
    welcome: { ping_interval: 0.05 },
    events: (stream) => {
      stream.begin()
      if (++n === 1) stream.ack('o.*', { stream: 'o', epoch: 'e', seq: 7, recovered: 2, complete: true })
      else for (const topic of stream.topics) stream.ack(topic, topic === 'o.*' && { stream: 'o', epoch: 'e', seq: 8, recovered: 1, complete: true })
      return true
    },
  })
  let token = 'one'
  const client = over(server, { durable, token: () => token })
  const got = []
  const orders = client.subscribe('o.*', ({ seq, epoch }) => got.push([seq, epoch]), undefined, { since: { seq: 5, epoch: 'e' } })
  await orders.ready
  const [first] = server.streams
  assert.equal(first.since, 'e.5')
  const event = (stream, seq) => stream.event('o.1', seq, { seq, prev: seq - 1, time: '' }, 'o.*')
  event(first, 6)
  event(first, 7)
  await until(() => got.length === 2)
  await client.subscribe('a', () => {}).ready
  assert.deepEqual(server.streams.map(({ topics }) => topics), [['o.*'], ['a']])
  assert.equal(first.over, false)
  token = 'two'
  first.say({ type: 'expiring', topic: 'o.*', exp: Math.floor(Date.now() / 1000) })
  await until(() => server.streams.some(({ token, topics }) => token === 'two' && topics[0] === 'o.*'))
  const second = server.streams.find(({ token, topics }) => token === 'two' && topics[0] === 'o.*')
  assert.equal(second.since, 'e.7')
  await until(() => first.over)
  event(second, 7) // what it has had
  event(second, 8)
  await until(() => got.length === 3)
  assert.deepEqual(got, [[6, 'e'], [7, 'e'], [8, 'e']])
  assert.deepEqual(orders.position, { seq: 8, epoch: 'e' })
  assert.deepEqual(client.errors, [])
})

test('what is gone is told: in a stream, and when the next request begins', limit, async () => {
  let complete = true
  const server = await serveEvents({
    events: (stream) => (stream.begin(), stream.ack('o', { epoch: 'e', seq: complete ? 0 : 30, recovered: complete ? 0 : 1, complete, ...(!complete && { first: 30 }) }), true),
  })
  const client = over(server, { durable })
  const told = []
  await client.subscribe('o', ({ seq }) => told.push(seq), undefined, { since: { seq: 0 }, onGap: (gap) => told.push(gap) }).ready
  const [stream] = server.streams
  stream.event('o', 1, { seq: 1, prev: 0 })
  stream.say({ type: 'gap', topic: 'o', after: 1, first: 10 })
  stream.event('o', 10, { seq: 10, prev: 1 })
  await until(() => told.length === 3)
  complete = false
  stream.say({ type: 'expiring', topic: 'o', exp: 1 })
  await until(() => server.streams.length === 2)
  server.streams[1].event('o', 30, { seq: 30, prev: 12 })
  await until(() => told.length === 5)
  assert.equal(server.streams[1].since, 'e.10')
  assert.deepEqual(told.map((one) => one.first ?? one), [1, 10, 10, 30, 30])
  assert.deepEqual(client.errors, [])
})

test('a stream that was made anew is read from its beginning, and told once', limit, async () => {
  let epoch = 'f'
  const server = await serveEvents({
    events: (stream) => (stream.begin(), stream.ack('o', { epoch, seq: 2, recovered: 2, complete: false, first: 1 }), true),
  })
  const client = over(server, { durable })
  const told = []
  await client.subscribe('o', ({ seq, epoch }) => told.push(`${epoch}.${seq}`), undefined, { since: { seq: 50, epoch: 'e' }, onGap: (gap) => told.push(gap) }).ready
  const bring = (stream) => [1, 2].forEach((seq) => stream.say({ type: 'event', topic: 'o', data: 0, seq, prev: seq - 1 }, `${epoch}.${seq}`))
  bring(server.streams[0])
  await until(() => told.length === 3)
  epoch = 'g'
  server.streams[0].say({ type: 'expiring', topic: 'o', exp: 1 })
  await until(() => server.streams.length === 2)
  bring(server.streams[1])
  await until(() => told.length === 6)
  assert.deepEqual(told, [{ after: 50, first: 1, epoch: 'f' }, 'f.1', 'f.2', { after: 2, first: 1, epoch: 'g' }, 'g.1', 'g.2'])
  assert.deepEqual(client.errors, [])
})

test('one topic that is refused does not take the others with it', limit, async () => {
  const server = await serveEvents({ events: ({ topics, problem }) => topics.includes('no') && (problem(403, 'forbidden'), true) })
  const client = over(server)
  const yes = client.subscribe('yes', () => {})
  const no = client.subscribe('no', () => {}, () => {})
  await assert.rejects(no.ready, (error) => error instanceof RefusedError && error.code === 'forbidden' && error.topic === 'no')
  await yes.ready
  assert.equal(client.state, 'connected')
})

test('publishes leave together and in order, after the subscribes before them, each with its answer', limit, async () => {
  let hold
  const server = await serveEvents({
    events: (stream) => ((hold = stream), true),
    publish: ({ id, data, msg_id }) => (data === 2 ? { ok: false, id, code: 'forbidden', message: 'no' } : { ok: true, id, ...(msg_id && { seq: 9, duplicate: true }) }),
  })
  const client = over(server)
  const { ready } = client.subscribe('a', () => {})
  const all = Promise.allSettled([1, 2, 3].map((n) => client.publish('a', n, n === 3 ? { msgId: 'm' } : {})))
  await until(() => hold)
  await sleep(20)
  assert.deepEqual(server.publishes, [])
  hold.begin()
  hold.ack('a')
  await ready
  const [one, two, three] = await all
  assert.equal(one.status, 'fulfilled')
  assert.ok(two.reason instanceof RefusedError && two.reason.code === 'forbidden' && two.reason.topic === 'a')
  assert.deepEqual([three.value.seq, three.value.duplicate], [9, true])
  assert.deepEqual(server.publishes.flat().map(({ data, token }) => [data, token]), [[1, 'token'], [2, 'token'], [3, 'token']])
})

test('a request that is refused, or lost, says so to each publish in it', limit, async () => {
  const on = { refuse: [503, 'unavailable'] }
  const server = await serveEvents(on)
  const client = over(server)
  await assert.rejects(client.publish('a', 1), { code: 'unavailable', heals: true })
  on.refuse = [200]
  on.publish = undefined
  on.down = () => true
  await assert.rejects(client.publish('a', 2), UnansweredError)
})

test('a stream that falls silent is replaced, and one that is alive is not', limit, async () => {
  const server = await serveEvents({ welcome: { ping_interval: 1 } })
  const client = over(server)
  await client.subscribe('a', () => {}).ready
  const beat = setInterval(() => server.streams[0].comment(), 50)
  await sleep(4000)
  const before = server.streams.length
  clearInterval(beat)
  await until(() => server.streams.length > before)
  await until(() => server.streams[0].over)
  assert.equal(client.state, 'connected')
  assert.equal(before, 1)
})

test('the end of a stream is that of the connection, with its code', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const waiting = (n) => client.states.filter(([state]) => state === 'waiting').length === n
  await client.subscribe('a', () => {}).ready
  server.streams[0].say({ code: 4410, reason: 'slow' })
  await until(() => waiting(1) && server.streams.length === 2)
  assert.equal(client.states.find(([state]) => state === 'waiting')[1].code, 4410)
  await until(() => client.state === 'connected')
  server.streams[1].say({ code: 1008, reason: 'no' })
  await until(() => client.state === 'closed')
})

for (const strategy of ['first-message', 'subprotocol', 'ticket']) {
  test(`${strategy}: the connection's token is in each request, and is replaced without a gap`, limit, async () => {
    const server = await serveEvents()
    let given = 0
    const client = over(server, { strategy, token: ({ action }) => `${action} ${++given}` })
    await client.subscribe('a', () => {}).ready
    server.streams[0].say({ type: 'expiring', topic: 'a', exp: 1 })
    await until(() => server.streams[0].over)
    assert.deepEqual(server.streams.map(({ token }) => token), ['connect 1', 'connect 2'])
    assert.deepEqual(client.states.map(([state]) => state), ['connected'])
    // A token that is not taken any more ends the connection, and the next has another.
    server.streams[1].say({ type: 'error', topic: 'a', code: 'token_revoked', message: '' })
    server.streams[1].say({ code: 4401, reason: 'revoked' })
    await until(() => server.streams.length === 3 && server.streams[2].token === 'connect 3')
  })
}

test('unsubscribe ends the request of the last topic, and close ends all', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const [a, b] = ['a', 'b'].map((topic) => client.subscribe(topic, () => {}))
  await Promise.all([a.ready, b.ready])
  a.unsubscribe()
  await sleep(30)
  assert.equal(server.streams[0].over, false)
  b.unsubscribe()
  await until(() => server.streams[0].over)
  await client.subscribe('c', () => {}).ready
  client.close()
  await until(() => server.streams[1].over)
})
