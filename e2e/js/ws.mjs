// A client made with npm ws, driven by lines: see dialScript.
import { createInterface } from 'node:readline'
import WebSocket from 'ws'

const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const socket = new WebSocket(process.argv[2], ['notifyd.v1'])

socket.on('open', () => {
  if (socket.protocol !== 'notifyd.v1') throw new Error(`subprotocol is "${socket.protocol}"`)
  say({ open: true })
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
