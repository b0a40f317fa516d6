// What the tests share: a notifyd server that does what a test says: each envelope that comes in is kept, and answered by the script.
import { createServer } from 'node:http'
import { afterEach } from 'node:test'
import WebSocket, { WebSocketServer } from 'ws'
import { Client } from '../dist/index.js'

export { WebSocket }

/** Starts a server on a free port. on[type](envelope, socket) answers; what is not scripted is acknowledged. */
async function fake(on = {}, { port = 0, welcome = {}, welcomeOf = () => ({}) } = {}) {
  // on.http(request, response) answers the calls over HTTP; on.upgrade(request) may give the status of a refused handshake.
  const http = createServer((request, response) => (on.http ?? ((_, r) => r.writeHead(404).end()))(request, response))
  const server = new WebSocketServer({ noServer: true, handleProtocols: () => 'notifyd.v1' })
  http.on('upgrade', (request, socket, head) => {
    socket.on('error', () => {}) // the client may be gone
    const status = on.upgrade?.(request)
    if (status) return socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: 0\r\n\r\n`)
    server.handleUpgrade(request, socket, head, (ws) => server.emit('connection', ws, request))
  })
  await new Promise((resolve) => http.listen(port, '127.0.0.1', resolve))
  const seen = []
  const waiting = []
  const sockets = []
  server.on('connection', (socket, request) => {
    const say = (message) => socket.send(JSON.stringify(message))
    const peer = { say, socket, protocols: request.headers['sec-websocket-protocol'], seen: [], closed: 0 }
    socket.on('close', (code) => (peer.closed = code))
    sockets.push(peer)
    if (on.connect?.(peer) === false) return
    say({ type: 'welcome', conn: 'c', node: 'n', time: new Date().toISOString(), ping_interval: 25, max_message_bytes: 65536, ...welcome, ...welcomeOf(peer) })
    socket.on('message', (text) => {
      const envelope = JSON.parse(text)
      seen.push(envelope)
      peer.seen.push(envelope)
      const answer = on[envelope.type]
      if (answer) answer(envelope, peer)
      else if (envelope.type === 'ping') say({ type: 'pong', id: envelope.id })
      else say({ type: 'ack', id: envelope.id })
      for (const wake of waiting.splice(0)) wake()
    })
  })
  return {
    url: `ws://127.0.0.1:${http.address().port}/v1/ws`,
    port: http.address().port,
    seen,
    sockets,
    /** Waits until an envelope fits, and returns all that do. */
    async await(fits, count = 1) {
      for (;;) {
        const found = seen.filter(fits)
        if (found.length >= count) return found
        await new Promise((resolve) => waiting.push(resolve))
      }
    },
    async stop() {
      for (const { socket } of sockets) socket.terminate()
      server.close()
      http.closeAllConnections()
      await new Promise((resolve) => http.close(resolve))
    },
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Waits until the condition holds. */
export async function until(condition) {
  for (const end = Date.now() + 50_000; !condition(); await sleep(5)) {
    if (Date.now() > end) throw new Error(`did not happen: ${condition}`)
  }
}

/** The time limit of a test. */
export const limit = { timeout: 60_000 }

export const error = (envelope, code) => ({ type: 'error', id: envelope.id, topic: envelope.topic, code, message: 'for a test' })
export const of = (type) => (envelope) => envelope.type === type

const open = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await (thing.stop ?? thing.close).call(thing)
})

/** A fake that ends with the test. */
export async function serve(on, options) {
  const server = await fake(on, options)
  open.push(server)
  return server
}

/** A client that ends with the test, and notes its errors and states. */
export function dial(server, options = {}) {
  const errors = []
  const states = []
  const client = new Client(server.url, {
    token: () => 'token',
    backoff: { min: 1, max: 20 },
    onError: (error) => errors.push(error),
    onState: (state, error) => states.push([state, error]),
    WebSocket,
    ...options,
  })
  open.push(client)
  return Object.assign(client, { errors, states })
}
