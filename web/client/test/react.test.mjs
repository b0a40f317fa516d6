import assert from 'node:assert/strict'
import { test } from 'node:test'
import { JSDOM } from 'jsdom'

const { window } = new JSDOM('<div id="root"></div>')
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true })
Object.defineProperty(globalThis, 'navigator', { value: window.navigator, configurable: true }) // Node 20 has none
const { act, createElement } = await import('react')
const { createRoot } = await import('react-dom/client')
const { useLatest, useSubscription } = await import('../dist/react.js')

/** A client that notes who is subscribed, and delivers what a test says. */
function recorder() {
  const subscribed = new Map()
  return {
    subscribed,
    subscribe(pattern, handler, ended) {
      const entry = { pattern, handler, ended }
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
