// subscriber.mjs DIST TASK: a subscriber with the client of web/client, for the suite of subscribers_test.go. It prints a line
// for what happens: ready, event N, gap AFTER FIRST, ended CODE.
import { pathToFileURL } from 'node:url'
import { WebSocket } from 'ws'

const [dist, text] = process.argv.slice(2)
const load = (name) => import(pathToFileURL(`${dist}/${name}.js`))
const [{ Client }, { durable }, { sse }] = await Promise.all(['index', 'durable', 'sse'].map(load))
const { url, token, topic, since, slow, transport } = JSON.parse(text)
const say = (line) => process.stdout.write(line + '\n')
let wait = slow

const client = new Client(url, { token: () => token, WebSocket, durable, sse, transport, backoff: { min: 10, max: 100 } })
const subscription = client.subscribe(
  topic,
  ({ data }) => {
    if (wait) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000)
    wait = false
    say(`event ${data.n}`)
  },
  ({ code }) => say(`ended ${code}`),
  { ...(since && { since: { seq: since } }), onGap: ({ after, first }) => say(`gap ${after} ${first}`) },
)
await subscription.ready
say('ready')
