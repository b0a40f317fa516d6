// A client made with npm ws, driven by lines: see dialScript.
import { createInterface } from 'node:readline'
import WebSocket from 'ws'

const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const [url, headers = '{}'] = process.argv.slice(2)
const socket = new WebSocket(url, ['notifyd.v1'], { headers: JSON.parse(headers) })

socket.on('open', () => {
  if (socket.protocol !== 'notifyd.v1') throw new Error(`subprotocol is "${socket.protocol}"`)
  say({ open: true })
})
socket.on('unexpected-response', (_, response) => {
  say({ close: response.statusCode })
  process.exit(0)
})
socket.on('message', (data, isBinary) => {
  if (isBinary) throw new Error('a binary message')
  say(data.toString())
})
socket.on('close', (code) => {
  say({ close: code })
  process.exit(0)
})

createInterface({ input: process.stdin })
  .on('line', (line) => socket.send(JSON.parse(line)))
  .on('close', () => socket.close())
