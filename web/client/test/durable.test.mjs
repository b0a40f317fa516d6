// Durable topics: what a subscription knows of its stream, and what it asks for when it goes on.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { durable, OrderError } from '../dist/durable.js'
import { dial, error, limit, of, serve, until } from './fake.mjs'

// The scripts of the Go client, which say what connections bring.
const scripts = readFileSync(new URL('../../../client/testdata/chain.txt', import.meta.url), 'utf8')
for (const [, name, script, want] of scripts.matchAll(/^([^#\n][^:\n]*): (.*) => (.*)$/gm)) {
  test(`chain: ${name}`, () => runChain(script, want))
}

function runChain(script, want) {
  const got = []
  let told = []
  const onGap = ({ after, first, epoch }) => got.push(`gap(${[after, first, epoch].filter((x) => x !== undefined)})`)
  const subscription = {
    pattern: 'a.*',
    host: { report: (error) => told.push(flawOf(error)) },
    hand: ({ seq }) => got.push(String(seq)),
    tell: (tell) => tell({ onGap }),
  }
  let chain
  const connections = {}
  for (const step of script.split(/, (?=[AB])/)) {
    const [, line, flaw] = /^(.*?)(?: \[(.*)\])?$/.exec(step)
    const [who, what, ...rest] = line.split(' ')
    const connection = (connections[who] ??= {})
    told = []
    if (/none|since|last/.test(what)) {
      const { since, ack } = answerOf([what, ...rest])
      chain ??= new durable(subscription, since && { since })
      const asked = chain.ask(connection)
      assert.deepEqual({ ...asked.since, epoch: undefined }, { ...since, epoch: undefined }, step)
      asked.acked(ack)
    } else if (what === 'renewed') {
      assert.deepEqual(chain.ask(connection), {})
    } else if (what === 'lost') {
      chain.lose(connection)
    } else if (what === 'forgets') {
      assert.ok(chain.forgets({ code: 'history_unavailable' }))
      got.pop() // it has told of the gap already
    } else if (what === 'down') {
      delete connections[who]
    } else if (what === 'gap') {
      const [after, first, epoch] = rest
      assert.ok(chain.take(connection, { type: 'gap', after: Number(after), first: Number(first), ...(epoch && { epoch }) }))
    } else {
      const [, y, seq, prev] = /^(y?)(\d+)(?:<(\d+))?$/.exec(what)
      const message = { type: 'event', topic: y ? 'a.y' : 'a.1', seq: Number(seq) }
      if (prev) message.prev = Number(prev)
      assert.ok(chain.take(connection, message))
    }
    assert.deepEqual(told, flaw ? [flaw] : [], step)
  }
  const forgot = script.includes('forgets')
  assert.equal(got.join(' '), forgot ? want.replace(/ gap\S*/, '') : want)
}

function answerOf(words) {
  const ack = { type: 'ack', epoch: 'e', complete: true, recovered: 0 }
  let since
  while (words.length > 0) {
    const word = words.shift()
    if (word === 'since') since = { seq: Number(words.shift()) }
    else if (word === 'last') since = { last: Number(words.shift()) }
    else if (word === 'epoch') ack.epoch = words.shift()
    else if (word === 'part') Object.assign(ack, { complete: false, first: Number(words.shift()) })
    else if (word === 'ack') ack.seq = Number(words.shift())
    else if (word !== 'none') ack.recovered = Number(word)
  }
  return { since, ack }
}

function flawOf(error) {
  assert.ok(error instanceof OrderError, error)
  const [, seq, prev, last] = /event (\d+) follows (\w+), but the last that came is (\d+)$/.exec(error.message)
  if (Number(seq) <= Number(last)) return `${seq} dropped after ${last}`
  return `${seq} after ${last}, prev ${prev === 'undefined' ? 'unknown' : prev}`
}

test('a pattern with topics without end takes bounded memory, and a loss is still found', () => {
  const told = []
  const chain = new durable({ pattern: '>', host: { report: (error) => told.push(error) }, hand: () => {} })
  const connection = {}
  chain.ask(connection).acked({ type: 'ack', epoch: 'e', seq: 0, recovered: 0, complete: true })
  const count = 120_000
  for (let seq = 1; seq <= count; seq++) chain.take(connection, { type: 'event', topic: `t${seq}`, seq, prev: 0 })
  chain.take(connection, { type: 'event', topic: 't1', seq: count + 1, prev: 1 }) // of long ago
  assert.equal(told.length, 0)
  chain.take(connection, { type: 'event', topic: 't2', seq: count + 3, prev: count + 2 })
  assert.equal(told.length, 1)
})

const stored = (seq, more = {}) => ({ type: 'event', topic: 'a.1', pattern: 'a.*', data: seq, seq, prev: seq - 1, time: '2026-02-01T10:00:00.000Z', ...more })
const resumed = ({ id }, more) => ({ type: 'ack', id, exp: 2 ** 40, stream: 's', epoch: 'e', seq: 5, recovered: 0, complete: true, ...more })

/** A client that is subscribed to a.* at 5, and a server whose further answers are those of next. */
async function follow({ next = [], since, ...options } = {}) {
  let n = 0
  const server = await serve({
    subscribe: (envelope, peer) => peer.say(resumed(envelope, n++ === 0 ? {} : next.shift())),
    ...options.on,
  }, options.server)
  const client = dial(server, { durable, ...options.client })
  const got = []
  const gaps = []
  const subscription = client.subscribe('a.*', (event) => got.push(event), undefined, { since, onGap: (gap) => gaps.push(gap) })
  await subscription.ready
  return { server, client, subscription, got, gaps }
}

test('a subscription goes on from its position after its connection was lost', limit, async () => {
  const { server, client, subscription, got } = await follow({ next: [{ seq: 8, recovered: 2 }, { seq: 20 }, { seq: 20 }] })
  assert.deepEqual(subscription.position, { seq: 5, epoch: 'e' })
  server.sockets[0].say(stored(6, { from: 'alice' }))
  await until(() => got.length === 1)
  assert.deepEqual(got[0], { topic: 'a.1', pattern: 'a.*', data: 6, seq: 6, prev: 5, epoch: 'e', time: '2026-02-01T10:00:00.000Z', from: 'alice' })
  server.sockets[0].socket.terminate()
  await server.await(of('subscribe'), 2)
  for (const seq of [7, 8, 9]) server.sockets[1].say(stored(seq))
  await until(() => got.length === 4)
  server.sockets[1].socket.terminate()
  await until(() => subscription.position.seq === 20) // nothing of it was for this subscription
  server.sockets[2].socket.terminate()
  const asked = await server.await(of('subscribe'), 4)
  assert.deepEqual(asked.map(({ since }) => since), [undefined, { seq: 6, epoch: 'e' }, { seq: 9, epoch: 'e' }, { seq: 20, epoch: 'e' }])
  assert.deepEqual(got.map(({ seq }) => seq), [6, 7, 8, 9])
  assert.deepEqual(client.errors, [])
})

test('an event is a since, and so is a position that was kept', limit, async () => {
  for (const since of [stored(3, { epoch: 'e' }), { seq: 3, epoch: 'e' }]) {
    const { server } = await follow({ since })
    assert.deepEqual(server.seen.find(of('subscribe')).since, { seq: 3, epoch: 'e' })
  }
  for (const since of [{ seq: 0 }, { last: 3 }, { time: '2026-02-01T10:00:00Z' }]) {
    const { server } = await follow({ since })
    assert.deepEqual(server.seen.find(of('subscribe')).since, since)
  }
})

test('what comes in one packet with the ack is not lost', limit, async () => {
  const server = await serve({
    subscribe: (envelope, { socket }) => {
      socket._socket.cork()
      socket.send(JSON.stringify(resumed(envelope)))
      for (const seq of [6, 7]) socket.send(JSON.stringify(stored(seq)))
      socket._socket.uncork()
    },
  })
  const got = []
  dial(server, { durable }).subscribe('a.*', ({ seq }) => got.push(seq))
  await until(() => got.length === 2)
})

test('a new token neither moves the position nor repeats anything', limit, async () => {
  const { server, subscription, got } = await follow({ next: [{ seq: 90 }] })
  server.sockets[0].say({ type: 'expiring', topic: 'a.*', exp: Date.now() / 1000 + 1 })
  const asked = await server.await(of('subscribe'), 2)
  assert.equal(asked[1].since, undefined)
  server.sockets[0].say(stored(6))
  await until(() => got.length === 1)
  assert.equal(subscription.position.seq, 6)
})

test('a subscription that the server has dropped misses nothing', limit, async () => {
  const { server, got, client } = await follow({ next: [{ seq: 8, recovered: 3 }] })
  const [peer] = server.sockets
  peer.say({ type: 'expired', topic: 'a.*' })
  peer.say(stored(8)) // of no subscription that is whole
  const asked = await server.await(of('subscribe'), 2)
  assert.deepEqual(asked[1].since, { seq: 5, epoch: 'e' })
  for (const seq of [6, 7, 8, 9]) peer.say(stored(seq))
  await until(() => got.length === 4)
  assert.deepEqual(got.map(({ seq }) => seq), [6, 7, 8, 9])
  assert.deepEqual(client.errors, [])
})

test('a node that restarts is left when another one brings the events, each once and at once', limit, async () => {
  const nodes = ['one', 'two']
  const { server, got, client } = await follow({ next: [{ seq: 7, recovered: 1 }], server: { welcomeOf: () => ({ node: nodes.shift() }) } })
  const [one] = server.sockets
  one.say({ type: 'restart', within: 1 })
  one.say(stored(6))
  await until(() => server.sockets.length === 2)
  const two = server.sockets[1]
  await server.await(of('subscribe'), 2)
  for (const seq of [7, 8, 9]) two.say(stored(seq))
  await until(() => got.length === 4)
  await until(() => one.closed === 1000)
  assert.deepEqual(got.map(({ seq }) => seq), [6, 7, 8, 9])
  assert.deepEqual(one.seen.map(({ type }) => type), ['subscribe', 'unsubscribe'])
  assert.deepEqual(client.errors, [])
})

test('gaps are told in their place, or to onError', limit, async () => {
  const { server, got, gaps, client } = await follow({ next: [{ seq: 30, recovered: 1, complete: false, first: 25 }] })
  server.sockets[0].say({ type: 'gap', topic: 'a.*', after: 5, first: 9 })
  server.sockets[0].say(stored(9))
  await until(() => got.length === 1)
  assert.deepEqual(gaps, [{ after: 5, first: 9 }])
  server.sockets[0].socket.terminate()
  await until(() => gaps.length === 2)
  assert.deepEqual(gaps[1], { after: 9, first: 25 })
  client.subscribe('a.*', () => {}) // it shares the subscription, and has no onGap
  server.sockets[1].say({ type: 'gap', topic: 'a.*', after: 30, first: 40 })
  await until(() => client.errors.length === 1)
  assert.equal(client.errors[0].message, 'a.*: the events after 30 and before 40 are gone')
  assert.equal(gaps.length, 3)
})

test('a position that may not be read any more is given up, and told', limit, async () => {
  let n = 0
  const { server, gaps, subscription } = await follow({
    on: { subscribe: (envelope, peer) => peer.say(n++ === 1 ? error(envelope, 'history_unavailable') : resumed(envelope, { seq: n * 5 })) },
  })
  server.sockets[0].socket.terminate()
  const asked = await server.await(of('subscribe'), 3)
  await until(() => subscription.position?.seq === 15)
  assert.deepEqual(asked[2].since, undefined)
  assert.deepEqual(gaps, [{ after: 5 }])
})

test('a since that cannot be had ends the subscription', limit, async () => {
  const server = await serve({ subscribe: (envelope, { say }) => say(error(envelope, 'history_unavailable')) })
  const { ready } = dial(server, { durable }).subscribe('a', () => {}, () => {}, { since: { seq: 0 } })
  await assert.rejects(ready, { code: 'history_unavailable' })
})

test('without the module, events have their seq and nothing else changes', limit, async () => {
  const { server, got, client } = await follow({ client: { durable: undefined } })
  server.sockets[0].say({ type: 'gap', topic: 'a.*', after: 5, first: 9 })
  server.sockets[0].say(stored(9))
  await until(() => got.length > 0)
  assert.deepEqual(got.map(({ seq, epoch }) => [seq, epoch]), [[9, undefined]])
  server.sockets[0].socket.terminate()
  assert.equal((await server.await(of('subscribe'), 2))[1].since, undefined)
  assert.deepEqual(client.errors, [])
})

test('topics that are not durable are as ever', limit, async () => {
  const server = await serve({})
  const got = []
  const subscription = dial(server, { durable }).subscribe('a', (event) => got.push(event))
  await subscription.ready
  server.sockets[0].say({ type: 'event', topic: 'a', data: 1 })
  server.sockets[0].say({ type: 'event', topic: 'a', pattern: '>', data: 2, seq: 7, prev: 3 })
  await until(() => got.length === 1)
  assert.deepEqual(got, [{ topic: 'a', data: 1 }])
  assert.equal(subscription.position, undefined)
  server.sockets[0].socket.terminate()
  assert.equal((await server.await(of('subscribe'), 2))[1].since, undefined)
})

test('a loop that is too slow loses nothing of a durable topic: it ends, and another goes on', limit, async () => {
  const { server, client } = await follow({ client: { buffer: 2 } })
  await server.await(of('subscribe'))
  const events = client.events('b', { since: { seq: 5, epoch: 'e' } })
  await server.await(of('subscribe'), 2)
  for (const seq of [6, 7, 8, 9]) server.sockets[0].say(stored(seq, { topic: 'b', pattern: undefined }))
  await server.await(of('unsubscribe'))
  const seen = []
  await assert.rejects(async () => {
    for await (const event of events) seen.push(event)
  }, /slow consumer/)
  assert.deepEqual(seen.map(({ seq }) => seq), [6, 7, 8])
  client.events('b', { since: seen.at(-1) })
  assert.deepEqual((await server.await(of('subscribe'), 3))[2].since, { seq: 8, epoch: 'e' })
})

test('a publish says what the stream is to do with the event, and learns what it did', limit, async () => {
  const server = await serve({ publish: ({ id, msg_id }, { say }) => say({ type: 'ack', id, ...(msg_id && { seq: 7, duplicate: true }) }) })
  const client = dial(server)
  const { seq, duplicate } = await client.publish('a', 1, { msgId: 'm', ttl: 3600 })
  assert.deepEqual([seq, duplicate], [7, true])
  assert.equal((await client.publish('a', 2)).seq, undefined)
  const [first, second] = server.seen.filter(of('publish'))
  assert.deepEqual([first.msg_id, first.ttl, second.msg_id, second.ttl], ['m', 3600, undefined, undefined])
})
