// A node says that it restarts, and the client goes to another one before it does (docs/adr/0011).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { dial, limit, of, serve, sleep, until } from './fake.mjs'

const event = (data, topic = 'a') => ({ type: 'event', topic, data })

/** A client on the node "one", which says that it restarts; another connection reaches the node "two". */
async function moving(on = {}, options = {}) {
  let nodes = ['one', 'two']
  const server = await serve({ ...on, connect: (peer) => void (peer.node = nodes.length > 1 ? nodes.shift() : nodes[0]) }, { welcomeOf: (peer) => ({ node: peer.node }) })
  const client = dial(server, options)
  const got = []
  await client.subscribe('a', ({ data }) => got.push(data)).ready
  const [one] = server.sockets
  const restart = () => one.say({ type: 'restart', within: 1 })
  return { server, client, got, one, restart, to: (list) => (nodes = list) }
}

test('events of both connections reach the handler once and in order, and the old one is given up', limit, async () => {
  let letGo
  const { server, client, got, one, restart } = await moving({
    unsubscribe: ({ id }, peer) => (letGo = () => peer.say({ type: 'ack', id })),
  })
  restart()
  one.say(event(1))
  await server.await(of('subscribe'), 2)
  const two = server.sockets[1]
  one.say(event(2))
  two.say(event(2)) // both have it
  two.say(event(3))
  two.say(event(4))
  one.say(event(3)) // the old node is behind
  await until(() => got.length === 3 && letGo)
  await sleep(30)
  assert.deepEqual(got, [1, 2, 3])
  letGo()
  two.say(event(5))
  two.say(event(5)) // two events with equal data are two
  await until(() => got.length >= 6)
  assert.deepEqual(got, [1, 2, 3, 4, 5, 5])
  await until(() => one.closed === 1000)
  assert.deepEqual(client.states.map(([state]) => state), ['connected'])
  assert.equal(client.errors.length, 0)
})

test('what is on its way to the old node, when the new one confirms, is not lost', limit, async () => {
  const { server, got, one, restart } = await moving()
  restart()
  await server.await(of('subscribe'), 2)
  server.sockets[1].say(event(2))
  await sleep(100)
  one.say(event(1)) // NATS knew nothing of the new subscription yet
  await until(() => one.closed === 1000)
  await until(() => got.length === 2)
  assert.deepEqual(got, [1, 2])
})

test('publishes wait until those on the old connection are answered, and a moment more', limit, async () => {
  let answer
  const { server, client, restart } = await moving({
    publish: ({ id, data }, peer) => (data === 1 ? (answer = () => peer.say({ type: 'ack', id })) : peer.say({ type: 'ack', id })),
  })
  restart()
  await until(() => server.sockets.length === 1)
  const first = client.publish('b', 1)
  await until(() => server.sockets.length === 2)
  await sleep(100)
  const second = client.publish('b', 2)
  await sleep(100)
  assert.deepEqual(server.seen.filter(of('publish')).map(({ data }) => data), [1])
  answer()
  const answered = Date.now()
  await Promise.all([first, second])
  assert.ok(Date.now() - answered > 200) // until NATS has it from the old node
  assert.deepEqual(server.sockets.map(({ seen }) => seen.filter(of('publish')).map(({ data }) => data)), [[1], [2]])
})

test('a connection that reaches the same node is given up, and another one made', limit, async () => {
  const { server, got, one, restart, to } = await moving({}, { backoff: { min: 50, max: 50 } })
  to(['one', 'one', 'two'])
  restart()
  await until(() => server.sockets.length === 4)
  await until(() => one.closed === 1000)
  const [, second, third, two] = server.sockets
  await until(() => second.closed === 1000 && third.closed === 1000)
  assert.deepEqual([second, third, two].map(({ seen }) => seen.filter(of('subscribe')).length), [0, 0, 1])
  two.say(event(1))
  await until(() => got.length === 1)
})

test('a node that closes before another was found is left at once', limit, async () => {
  const { server, client, got, one, restart } = await moving({}, { backoff: { min: 50_000, max: 50_000 } })
  restart()
  one.say(event(1))
  await until(() => got.length === 1)
  one.socket.close(1012)
  await server.await(of('subscribe'), 2)
  server.sockets[1].say(event(2))
  await until(() => got.length === 2)
  assert.equal(client.states[1][1].code, 1012)
  await sleep(700) // the search for another node has ended with the connection
  assert.equal(server.sockets.length, 2)
})

test('a new connection that fails during the move costs nothing', limit, async () => {
  let n = 0
  const { server, got, one, restart, to } = await moving({
    subscribe: ({ id }, { say, socket }) => (++n === 2 ? socket.terminate() : say({ type: 'ack', id })),
  })
  to(['two', 'three'])
  restart()
  await server.await(of('subscribe'), 2)
  one.say(event(1))
  await server.await(of('subscribe'), 3)
  const three = server.sockets[2]
  await until(() => one.seen.some(of('unsubscribe')))
  three.say(event(2))
  await until(() => got.length === 2)
  assert.deepEqual(got, [1, 2])
})

test('unsubscribe during the move leaves both nodes', limit, async () => {
  let hold = true
  const { server, client, one, restart } = await moving({ unsubscribe: ({ id }, { say }) => hold || say({ type: 'ack', id }) })
  const got = []
  const other = client.subscribe('b', ({ data }) => got.push(data))
  await other.ready
  restart()
  await until(() => server.sockets[1]?.seen.filter(of('subscribe')).length === 2)
  const two = server.sockets[1]
  await until(() => one.seen.filter(of('unsubscribe')).length >= 1)
  other.unsubscribe()
  await until(() => two.seen.some(({ type, topic }) => type === 'unsubscribe' && topic === 'b'))
  assert.ok(one.seen.some(({ type, topic }) => type === 'unsubscribe' && topic === 'b'))
  one.say(event(1, 'b'))
  two.say(event(2, 'b'))
  await sleep(50)
  assert.deepEqual(got, [])
  hold = false
})

test('close during the move closes both connections', limit, async () => {
  const { server, client, one, restart } = await moving({ unsubscribe: () => {} })
  restart()
  await until(() => one.seen.some(of('unsubscribe')))
  client.close()
  await until(() => server.sockets.every(({ closed }) => closed === 1000))
  assert.equal(server.sockets.length, 2)
})

test('more events than may be held end the overlap, and none is lost', limit, async () => {
  const { server, got, one, restart } = await moving({ unsubscribe: () => {} })
  restart()
  await until(() => one.seen.some(of('unsubscribe')))
  for (let i = 0; i < 1500; i++) server.sockets[1].say(event(i))
  await until(() => got.length === 1500)
  assert.deepEqual(got, Array.from({ length: 1500 }, (_, i) => i))
})

test('subscriptions that come during the move are on the new node in the end', limit, async () => {
  const { server, client, one, restart } = await moving()
  restart()
  const early = client.subscribe('b', () => {})
  await early.ready
  await until(() => one.closed === 1000)
  await client.subscribe('c', () => {}).ready
  assert.deepEqual(server.sockets[1].seen.filter(of('subscribe')).map(({ topic }) => topic).sort(), ['a', 'b', 'c'])
})
