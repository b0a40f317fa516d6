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
    const problem = (status, code, wait) => {
      response.writeHead(status, { 'Content-Type': 'application/problem+json', ...(wait && { 'Retry-After': wait }) })
      response.end(JSON.stringify({ title: '', status, code, message: 'for a test' }))
    }
    if (pathname === '/v1/openapi.json') return on.full?.() ? problem(503, 'unavailable', 1) : response.end()
    if (pathname === '/v1/events' && request.method === 'HEAD') return problem(on.refuses?.(request.headers.authorization) ? 401 : 400, '')
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
      begin: (rest) => response.writeHead(200, { 'Content-Type': 'text/event-stream' }) && stream.say({ type: 'welcome', node: 'n', ping_interval: 25, max_message_bytes: 65536, ...on.welcome, ...rest }),
      at: Date.now(),
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

test('a handshake whose token is refused says nothing against WebSockets', limit, async () => {
  let refuse = 401
  const server = await serveEvents({ websocket: () => refuse, refuses: (header) => header === 'Bearer token' })
  const told = []
  const client = dial(server, { sse, strategy: 'subprotocol', backoff: { min: 20, max: 10_000 }, onTransport: (transport) => told.push(transport) })
  await until(() => client.states.length > 8)
  refuse = 0
  await until(() => client.state === 'connected')
  assert.deepEqual(told, [])
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

test('a node that is behind the one before brings again what the page has had, and that is no other life', limit, async () => {
  let confirm
  const server = await serveEvents({
    events: (stream) => {
      stream.begin()
      if (stream.since === null) stream.ack('o', { stream: 'o', epoch: 'e', seq: 5 })
      else confirm = () => stream.ack('o', { stream: 'o', epoch: 'e', seq: 7, recovered: 0, complete: true })
      return true
    },
  })
  const client = over(server, { durable })
  const got = []
  await client.subscribe('o', ({ seq }) => got.push(seq)).ready
  const [first] = server.streams
  const event = (stream, seq) => stream.event('o', seq, { seq, prev: seq - 1 })
  event(first, 6)
  event(first, 7)
  await until(() => got.length === 2)
  first.say({ type: 'expiring', topic: 'o', exp: 1 })
  await until(() => confirm)
  event(first, 8)
  event(first, 9)
  await until(() => got.length === 4)
  confirm()
  const second = server.streams[1]
  for (const seq of [8, 9, 10]) event(second, seq)
  await until(() => got.includes(10))
  assert.equal(second.since, 'e.7')
  assert.deepEqual(got, [6, 7, 8, 9, 10])
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

test('Retry-After is heeded: of a request for events, of a publish, and of a server that takes no more connections', limit, async () => {
  let full = true
  const tries = []
  const on = {
    full: () => tries.push(Date.now()) && full,
    events: ({ problem }) => server.streams.length === 1 && (problem(503, 'unavailable', 1), true),
    refuse: [429, 'rate_limited', 2],
  }
  const server = await serveEvents(on)
  const client = over(server)
  await until(() => tries.length === 1)
  full = false
  await until(() => client.state === 'connected')
  assert.ok(tries[1] - tries[0] > 950, `${tries}`)
  assert.deepEqual(client.states.map(([state, error]) => [state, error?.retryAfter])[0], ['waiting', 1000])
  await client.subscribe('a', () => {}).ready
  assert.ok(server.streams[1].at - server.streams[0].at > 950)
  assert.deepEqual(client.errors.map(({ code, message, retryAfter }) => [code, message, retryAfter]), [['unavailable', 'unavailable: for a test', 1000]])
  await assert.rejects(client.publish('a', 1), { code: 'rate_limited', heals: true, retryAfter: 2000 })
})

for (const transport of ['sse', 'auto']) {
  test(`a token that is always refused is given up over ${transport}, though the server holds each refusal back for long`, limit, async () => {
    const server = await serveEvents({ websocket: () => 403, events: ({ problem }) => (setTimeout(problem, 100, 401, 'token_invalid'), true) })
    let given = 0
    const client = dial(server, { sse, transport, strategy: 'subprotocol', token: () => `token-${++given}` })
    client.subscribe('a', () => {}, () => {})
    await until(() => client.state === 'closed')
    assert.equal(client.states.at(-1)[1].code, 4401)
    assert.ok(server.streams.length > 2)
  })
}

const datum = ({ data }) => data

test('a new request takes the place of another, and no event is lost or doubled', limit, async () => {
  const server = await serveEvents({ events: () => server.streams.length > 1 })
  const client = over(server)
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  const [first] = server.streams
  first.say({ type: 'expiring', topic: 'a', exp: 1 })
  await until(() => server.streams.length === 2)
  const second = server.streams[1]
  first.event('a', 1)
  await until(() => got.length === 1)
  second.begin()
  second.ack('a')
  second.event('a', 1) // both have it
  second.event('a', 3)
  await sleep(50)
  first.event('a', 2) // the second one began behind it
  first.event('a', 3)
  await until(() => first.over)
  second.event('a', 4)
  second.event('a', 4) // two events with equal data are two
  await until(() => got.length >= 5)
  assert.deepEqual(got, [1, 2, 3, 4, 4])
  assert.deepEqual(client.errors, [])
})

test('several requests in a row take the place of one another', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  // Each subscribe makes the request anew with all topics, at once and a while later.
  for (const [i, topic] of ['b', 'c', 'd', 'e'].entries()) {
    await client.subscribe(topic, () => {}).ready
    await until(() => server.streams.length === i + 2)
    const both = server.streams.slice(-2)
    for (const stream of both) stream.over || stream.event('a', i)
    await sleep(i * 300)
  }
  await until(() => server.streams.filter((stream) => !stream.over).length === 1)
  const last = server.streams.at(-1)
  last.event('a', 4)
  await until(() => got.includes(4))
  assert.deepEqual(got, [0, 1, 2, 3, 4])
})

test('a request that takes the place of another which has just done so loses nothing either', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  const next = async (i) => {
    server.streams[i].say({ type: 'expiring', topic: 'a', exp: i + 1 })
    await until(() => server.streams.length === i + 2)
    await sleep(20)
  }
  await next(0)
  server.streams[0].event('a', 1)
  await until(() => server.streams[0].over)
  await next(1)
  server.streams[1].event('a', 2) // the third one began behind it
  await sleep(20)
  server.streams[2].event('a', 3)
  server.streams[1].event('a', 3)
  await until(() => server.streams[1].over)
  server.streams[2].event('a', 4)
  await until(() => got.includes(4))
  assert.deepEqual(got, [1, 2, 3, 4])
})

test('what is on its way to the first of three requests, when two others have confirmed, is not lost', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  for (const i of [0, 1]) {
    server.streams[i].say({ type: 'expiring', topic: 'a', exp: i + 1 })
    await until(() => server.streams.length === i + 2)
    await sleep(20)
  }
  const [first, second, third] = server.streams
  third.event('a', 3)
  second.event('a', 2)
  second.event('a', 3)
  await sleep(20)
  for (const i of [1, 2, 3]) first.event('a', i) // the node that it is at is behind
  await until(() => first.over && second.over)
  third.event('a', 4)
  await until(() => got.includes(4))
  assert.deepEqual(got, [1, 2, 3, 4])
  assert.equal(third.over, false)
})

test('a request that ends after another has confirmed its topics takes nothing with it', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  server.streams[0].say({ type: 'expiring', topic: 'a', exp: 1 })
  await until(() => server.streams.length === 2)
  await sleep(50)
  server.streams[1].event('a', 1)
  server.streams[0].say({ code: 4401, reason: 'expired' })
  await until(() => got.length === 1)
  server.streams[1].event('a', 2)
  await until(() => got.length === 2)
  assert.deepEqual(got, [1, 2])
  assert.deepEqual(client.states.map(([state]) => state), ['connected'])
})

test('a pattern over several streams and other topics gets the events of all', limit, async () => {
  const server = await serveEvents()
  const client = over(server)
  const got = []
  await client.subscribe('>', (event) => got.push(datum(event))).ready
  const [first] = server.streams
  const event = (stream, n, rest) => stream.event(`t.${n}`, n, rest, '>')
  event(first, 1, { seq: 50, prev: 0 })
  event(first, 2, { seq: 3, prev: 0 })
  event(first, 3)
  await until(() => got.length === 3)
  first.say({ type: 'expiring', topic: '>', exp: 1 })
  await until(() => first.over)
  assert.equal(server.streams[1].since, null)
  event(server.streams[1], 4, { seq: 51, prev: 50 })
  await until(() => got.length === 4)
  assert.deepEqual(got, [1, 2, 3, 4])
})

test('a node that restarts says so, and its topics are opened at another one before it ends', limit, async () => {
  const nodes = { 1: 'one', 2: 'one', 3: 'one' }
  const server = await serveEvents({
    events: (stream) => {
      stream.node = nodes[server.streams.length] ?? 'two'
      stream.begin({ node: stream.node })
      if (server.streams.length > 2 && stream.node === 'one') return true // it is given up before it has confirmed anything
      for (const topic of stream.topics) stream.ack(topic, topic === 'o' ? { stream: 'o', epoch: 'e', seq: 5, recovered: 0, complete: true } : {})
      return true
    },
  })
  const client = over(server, { durable })
  const got = []
  const orders = client.subscribe('o', ({ seq }) => got.push(`o${seq}`), undefined, { since: { seq: 5, epoch: 'e' } })
  await Promise.all([orders.ready, client.subscribe('a', (event) => got.push(datum(event))).ready])
  const old = server.streams.slice()
  const of = (streams, topic) => streams.find(({ topics }) => topics[0] === topic)
  for (const stream of old) stream.say({ type: 'restart', within: 1 })
  of(old, 'a').event('a', 1)
  of(old, 'o').event('o', 6, { seq: 6, prev: 5 })
  await until(() => got.length === 2)
  const moved = () => server.streams.filter(({ node }) => node === 'two')
  await until(() => moved().length === 2)
  assert.equal(server.streams[2].over || server.streams[2].node === 'two', true)
  assert.equal(of(moved(), 'o').since, 'e.6')
  of(moved(), 'a').event('a', 2)
  of(old, 'a').event('a', 2)
  of(moved(), 'o').event('o', 7, { seq: 7, prev: 6 })
  await until(() => got.length === 4 && old.every((stream) => stream.over))
  of(moved(), 'a').event('a', 3)
  await until(() => got.length === 5)
  assert.deepEqual(got.filter((one) => one > 0), [1, 2, 3])
  assert.deepEqual(got.filter((one) => !(one > 0)), ['o6', 'o7'])
  assert.deepEqual(client.states.map(([state]) => state), ['connected'])
  assert.deepEqual(client.errors, [])
})

test('where there is no other node, the one that restarts serves to its end, and the client waits for the next', limit, async () => {
  const server = await serveEvents({ events: ({ begin }) => server.streams.length > 1 && server.streams.length < 4 && (begin(), true) })
  const client = over(server)
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  const [first] = server.streams
  first.say({ type: 'restart', within: 1 })
  await until(() => server.streams.length >= 3)
  await until(() => server.streams[1].over)
  assert.equal(first.over, false)
  first.event('a', 1)
  await until(() => got.length === 1)
  first.say({ code: 1012, reason: 'restart' })
  await until(() => client.states.some(([state, error]) => state === 'waiting' && error.code === 1012))
  await until(() => client.state === 'connected')
  await until(() => server.streams.at(-1).topics[0] === 'a' && !server.streams.at(-1).over)
  await sleep(50)
  server.streams.at(-1).event('a', 2)
  await until(() => got.length === 2)
})

for (const [status, code] of [[503, 'unavailable'], [429, 'rate_limited'], [401, 'token_not_yet_valid']]) {
  test(`a refresh that is refused with ${code} is made again, and the old token goes on`, limit, async () => {
    let refuse = false
    const server = await serveEvents({ events: ({ problem }) => refuse && (problem(status, code), true) })
    let given = 0
    const client = over(server, { token: () => `token ${++given}` })
    const got = []
    await client.subscribe('a', (event) => got.push(datum(event)), (error) => got.push(error)).ready
    const [first] = server.streams
    refuse = true
    first.say({ type: 'expiring', topic: 'a', exp: 1 })
    await until(() => client.errors.length >= 3)
    first.event('a', 1)
    await until(() => got.length === 1)
    refuse = false
    await until(() => first.over)
    server.streams.at(-1).event('a', 2)
    await until(() => got.length === 2)
    assert.deepEqual(got, [1, 2])
    assert.ok(client.errors.every((error) => error.code === code))
    // One that is too early is presented again; each other refusal asks for another.
    assert.equal(given === 2, code === 'token_not_yet_valid')
    assert.deepEqual(client.states.map(([state]) => state), ['connected'])
  })

  test(`a new token of the connection that is refused with ${code} changes nothing, and is followed by another`, limit, async () => {
    let refuse = false
    const server = await serveEvents({ events: ({ problem }) => refuse && (problem(status, code), true) })
    let given = 0
    const client = over(server, { strategy: 'first-message', token: () => `token ${++given}` })
    const got = []
    await Promise.all(['a', 'b'].map((topic) => client.subscribe(topic, (event) => got.push(datum(event)), (error) => got.push(error)).ready))
    const [first] = server.streams
    refuse = true
    first.say({ type: 'expiring', topic: 'a', exp: 1 })
    await until(() => client.errors.length >= 3)
    first.event('a', 1)
    await until(() => got.length === 1)
    refuse = false
    await until(() => first.over)
    const last = server.streams.at(-1)
    assert.notEqual(last.token, first.token)
    last.event('a', 2)
    last.event('b', 3)
    await until(() => got.length === 3)
    assert.deepEqual(got, [1, 2, 3])
    assert.deepEqual(client.states.map(([state]) => state), ['connected'])
    // A later subscribe has it too.
    await client.subscribe('c', () => {}).ready
    assert.equal(server.streams.at(-1).token, last.token)
  })
}

test('a new token of the connection that is refused for good changes nothing either', limit, async () => {
  const server = await serveEvents({ events: ({ token, problem }) => token === 'token 2' && (problem(401, 'token_invalid'), true) })
  let given = 0
  const client = over(server, { strategy: 'first-message', token: () => `token ${++given}` })
  const got = []
  await client.subscribe('a', (event) => got.push(datum(event))).ready
  const [first] = server.streams
  first.say({ type: 'expiring', topic: 'a', exp: 1 })
  await until(() => server.streams.length === 3 && first.over)
  assert.deepEqual(server.streams.map(({ token }) => token), ['token 1', 'token 2', 'token 3'])
  assert.deepEqual(client.errors.map(({ code }) => code), ['token_invalid'])
  assert.deepEqual(client.states.map(([state]) => state), ['connected'])
})

test('a new token of the connection that permits less ends what it does not permit', limit, async () => {
  const server = await serveEvents({ events: ({ token, topics, problem }) => token === 'token 2' && topics.includes('b') && (problem(403, 'forbidden'), true) })
  let given = 0
  const client = over(server, { strategy: 'first-message', token: () => `token ${++given}` })
  const ended = []
  await Promise.all(['a', 'b'].map((topic) => client.subscribe(topic, () => {}, (error) => ended.push([topic, error.code])).ready))
  server.streams[0].say({ type: 'expiring', topic: 'a', exp: 1 })
  await until(() => ended.length === 1 && server.streams[0].over)
  assert.deepEqual(ended, [['b', 'forbidden']])
  assert.ok(server.streams.some(({ token, topics, over }) => !over && token === 'token 2' && topics.join() === 'a'))
  assert.deepEqual(client.states.map(([state]) => state), ['connected'])
})

test('topics whose new token permits only some of them: the others go on', limit, async () => {
  let token = 'one'
  const server = await serveEvents({ events: ({ token, topics, problem }) => token === 'two' && topics.includes('b') && (problem(403, 'forbidden'), true) })
  const client = over(server, { token: () => token })
  const ended = []
  await Promise.all(['a', 'b'].map((topic) => client.subscribe(topic, () => {}, (error) => ended.push([topic, error.code])).ready))
  token = 'two'
  for (const topic of ['a', 'b']) server.streams[0].say({ type: 'expiring', topic, exp: 1 })
  await until(() => ended.length > 0)
  assert.deepEqual(ended, [['b', 'forbidden']])
  await until(() => server.streams.some(({ token, topics, over }) => !over && token === 'two' && topics.join() === 'a'))
})

test('a topic that the server ends by itself is asked for again, under the token of the connection too', limit, async () => {
  const server = await serveEvents()
  const client = over(server, { strategy: 'first-message' })
  const got = []
  await Promise.all(['a', 'b'].map((topic) => client.subscribe(topic, (event) => got.push(datum(event))).ready))
  server.streams[0].say({ type: 'error', topic: 'a', code: 'unavailable', message: '' })
  await until(() => server.streams.some(({ topics, over }, i) => i > 0 && !over && topics.includes('a')))
  await until(() => server.streams[0].over)
  server.streams.at(-1).event('a', 1)
  await until(() => got.length === 1)
  assert.equal(client.errors[0].code, 'unavailable')
})
