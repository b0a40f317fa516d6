// events.mjs URL TOKEN TOPIC…: reads the events of topics and patterns with two clients for Server-Sent Events that others
// wrote. Output: lines of JSON, {"client":NAME, "name":of the event, "data":ENVELOPE}, and {"client":NAME, "end":true}.
// A server that restarts is no end: both come back by themselves.
import { EventSource } from 'eventsource'
globalThis.window = globalThis // these two fetch-event-source expects
globalThis.document = new EventTarget()
const { fetchEventSource } = await import('@microsoft/fetch-event-source')

const [url, token, ...topics] = process.argv.slice(2)
const address = `${url}/v1/events?${new URLSearchParams(topics.map((topic) => ['topic', topic]))}`
const headers = { Authorization: `Bearer ${token}` }
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const ends = (data) => JSON.parse(data).code !== 1012

const source = new EventSource(address, { fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }) })
for (const name of ['message', 'welcome', 'ack', 'error', 'close']) {
  source.addEventListener(name, ({ data }) => {
    if (data !== undefined) say({ client: 'eventsource', name, data: JSON.parse(data) })
    if (name !== 'close' || !ends(data)) return
    source.close()
    say({ client: 'eventsource', end: true })
  })
}

const ended = new AbortController()
await fetchEventSource(address, {
  headers,
  fetch,
  openWhenHidden: true,
  signal: ended.signal,
  onmessage({ event, data }) {
    if (data) say({ client: 'fetch-event-source', name: event || 'message', data: JSON.parse(data) })
    if (event === 'close' && ends(data)) ended.abort()
  },
  onclose() {
    if (!ended.signal.aborted) throw new Error('it comes again')
  },
})
say({ client: 'fetch-event-source', end: true })
