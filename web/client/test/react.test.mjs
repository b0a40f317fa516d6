import assert from 'node:assert/strict'
import { test } from 'node:test'
import { JSDOM } from 'jsdom'
import { WebSocket, limit, of, serve, sleep, until } from './fake.mjs'

const { window } = new JSDOM('<div id="root"></div>')
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true })
Object.defineProperty(globalThis, 'navigator', { value: window.navigator, configurable: true }) // Node 20 has none
const { act, createElement, StrictMode } = await import('react')
const { createRoot } = await import('react-dom/client')
const { useClient, useLatest, useSubscription } = await import('../dist/react.js')

/** A client that notes who is subscribed, and delivers what a test says. */
function recorder() {
  const subscribed = new Map()
  return {
    subscribed,
    subscribe(pattern, handler, ended, options) {
      const entry = { pattern, handler, ended, options }
      subscribed.set(entry, pattern)
      return { ready: Promise.resolve(), unsubscribe: () => subscribed.delete(entry) }
    },
    deliver(pattern, event) {
      for (const entry of subscribed.keys()) if (entry.pattern === pattern) entry.handler(event)
    },
    end(pattern, error) {
      for (const entry of subscribed.keys()) if (entry.pattern === pattern) entry.ended(error)
    },
  }
}

test('a component hears the events of its pattern, with its latest handler, while it is mounted', async () => {
  const client = recorder()
  const got = []
  const Room = ({ room, suffix }) => {
    const error = useSubscription(client, `rooms.${room}`, (event) => got.push(event.data + suffix))
    return error?.message ?? 'well'
  }
  const place = document.getElementById('root')
  const root = createRoot(place)
  await act(() => root.render(createElement(Room, { room: 1, suffix: 'a' })))
  assert.deepEqual([...client.subscribed.values()], ['rooms.1'])
  client.deliver('rooms.1', { data: 1 })
  await act(() => root.render(createElement(Room, { room: 1, suffix: 'b' })))
  client.deliver('rooms.1', { data: 2 })
  await act(() => root.render(createElement(Room, { room: 2, suffix: 'b' })))
  assert.deepEqual([...client.subscribed.values()], ['rooms.2'])
  client.deliver('rooms.1', { data: 3 })
  client.deliver('rooms.2', { data: 4 })
  assert.deepEqual(got, ['1a', '2b', '4b'])
  await act(() => client.end('rooms.2', new Error('refused')))
  assert.equal(place.textContent, 'refused')
  await act(() => root.unmount())
  assert.equal(client.subscribed.size, 0)
})

test('since counts when a subscription begins, and the latest onGap is told', async () => {
  const client = recorder()
  const told = []
  const Wall = ({ n }) => String(useLatest(client, 'a', { since: { seq: n }, onGap: ({ after }) => told.push([n, after]) })?.data)
  const root = createRoot(document.getElementById('root'))
  await act(() => root.render(createElement(Wall, { n: 1 })))
  await act(() => root.render(createElement(Wall, { n: 2 })))
  const [{ options }, ...others] = client.subscribed.keys()
  assert.deepEqual(others, [])
  assert.deepEqual(options.since, { seq: 1 })
  options.onGap({ after: 7 })
  assert.deepEqual(told, [[2, 7]])
  await act(() => root.unmount())
})

test('useLatest gives the latest event of the pattern that it has now', async () => {
  const client = recorder()
  const Wall = ({ topic }) => String(useLatest(client, topic)?.data)
  const place = document.getElementById('root')
  const root = createRoot(place)
  await act(() => root.render(createElement(Wall, { topic: 'a' })))
  assert.equal(place.textContent, 'undefined')
  await act(() => client.deliver('a', { data: 1 }))
  await act(() => client.deliver('a', { data: 2 }))
  assert.equal(place.textContent, '2')
  await act(() => root.render(createElement(Wall, { topic: 'b' })))
  assert.equal(place.textContent, 'undefined')
  await act(() => root.unmount())
})

test('useLatest forgets what another client has brought', async () => {
  const [first, second] = [recorder(), recorder()]
  const Wall = ({ client }) => String(useLatest(client, 'a')?.data)
  const place = document.getElementById('root')
  const root = createRoot(place)
  await act(() => root.render(createElement(Wall, { client: undefined })))
  await act(() => root.render(createElement(Wall, { client: first })))
  await act(() => first.deliver('a', { data: 1 }))
  assert.equal(place.textContent, '1')
  await act(() => root.render(createElement(Wall, { client: second })))
  assert.equal(place.textContent, 'undefined')
  assert.equal(first.subscribed.size, 0)
  await act(() => root.unmount())
})

/** A page that shows the latest event of a topic, and says through which options it asks for tokens. */
function Page({ url, topic, user, token, onState }) {
  const client = useClient(url, { token: () => token, onState, WebSocket, backoff: { min: 1, max: 20 } }, user)
  return String(useLatest(client, topic)?.data)
}

for (const strict of [false, true]) {
  test(`useClient: one client while it is mounted, a new one for another user${strict ? ', in StrictMode' : ''}`, limit, async () => {
    const server = await serve()
    const living = () => server.sockets.filter(({ closed }) => closed === 0)
    const states = []
    const place = document.getElementById('root')
    const root = createRoot(place)
    const show = (props) => {
      const page = createElement(Page, { url: server.url, topic: 'a', user: 'ann', token: 'ann 1', ...props })
      return act(() => root.render(strict ? createElement(StrictMode, null, page) : page))
    }
    await show({ onState: (state) => states.push(state) })
    await server.await(of('subscribe'))
    await until(() => living().length === 1) // StrictMode makes two, and closes one
    const [first] = living()
    assert.deepEqual(first.seen.map(({ type, topic, token }) => [type, topic, token]), [['subscribe', 'a', 'ann 1']])
    first.say({ type: 'event', topic: 'a', data: 1 })
    while (place.textContent !== '1') await act(() => sleep(10))

    // Another token and another callback make no other client, and are used from then on; so is another topic.
    await show({ topic: 'b', token: 'ann 2' })
    await until(() => first.seen.length === 3)
    assert.deepEqual(first.seen.slice(1).map(({ type, topic, token }) => [type, topic, token]).sort(), [['subscribe', 'b', 'ann 2'], ['unsubscribe', 'a', undefined]])
    assert.deepEqual(living(), [first])
    assert.equal(place.textContent, 'undefined')
    assert.equal(states.at(-1), 'connected')

    await show({ topic: 'b', user: 'bob', token: 'bob 1' })
    await until(() => first.closed !== 0 && living()[0]?.seen.length === 1)
    assert.equal(living()[0].seen[0].token, 'bob 1')
    assert.equal(living().length, 1)

    await act(() => root.unmount())
    await until(() => living().length === 0)
  })
}
