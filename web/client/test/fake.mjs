// A notifyd server that does what a test says: each envelope that comes in is kept, and answered by the script.
import { WebSocketServer } from 'ws'
import WebSocket from 'ws'

export { WebSocket }

/** Starts a server on a free port. on[type](envelope, socket) answers; what is not scripted is acknowledged. */
export async function fake(on = {}, { port = 0, welcome = {} } = {}) {
  const server = new WebSocketServer({ port, host: '127.0.0.1', handleProtocols: () => 'notifyd.v1' })
  await new Promise((resolve) => server.once('listening', resolve))
  const seen = []
  const waiting = []
  const sockets = []
  server.on('connection', (socket, request) => {
    const say = (message) => socket.send(JSON.stringify(message))
    const peer = { say, socket, protocols: request.headers['sec-websocket-protocol'] }
    sockets.push(peer)
    if (on.connect?.(peer) === false) return
    say({ type: 'welcome', conn: 'c', node: 'n', time: new Date().toISOString(), ping_interval: 25, max_message_bytes: 65536, ...welcome })
    socket.on('message', (text) => {
      const envelope = JSON.parse(text)
      seen.push(envelope)
      const answer = on[envelope.type]
      if (answer) answer(envelope, peer)
      else if (envelope.type === 'ping') say({ type: 'pong', id: envelope.id })
      else say({ type: 'ack', id: envelope.id })
      for (const wake of waiting.splice(0)) wake()
    })
  })
  return {
    url: `ws://127.0.0.1:${server.address().port}/v1/ws`,
    port: server.address().port,
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
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Waits until the condition holds. The test's own time limit ends it otherwise. */
export async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}
