// What a page loads of this client and of others, bundled and compressed alike, as a table of Markdown:
// (cd .. && npm ci --ignore-scripts && npx tsc) && npm ci --ignore-scripts && node sizes.mjs
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const clients = [
  ['@notifyd/client', `export { Client } from '../dist/index.js'`],
  ['@notifyd/client, with durable', `export { Client } from '../dist/index.js'; export { durable } from '../dist/durable.js'`],
  ['@notifyd/client, with durable and sse', `export { Client } from '../dist/index.js'; export { durable } from '../dist/durable.js'; export { sse } from '../dist/sse.js'`],
  ['centrifuge', `export { Centrifuge } from 'centrifuge'`],
  ['centrifuge/build/protobuf', `export { Centrifuge } from 'centrifuge/build/protobuf'`],
  ['pusher-js', `export { default } from 'pusher-js'`],
  ['socket.io-client', `export { io } from 'socket.io-client'`],
  ['ably', `export { Realtime } from 'ably'`],
  ['ably/modular, a WebSocket alone', `export { BaseRealtime, WebSocketTransport, FetchRequest } from 'ably/modular'`],
]

const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'))
const resolveDir = new URL('.', import.meta.url).pathname
console.log('| | version | bytes, gzip -9 |\n|---|---|---:|')
for (const [name, contents] of clients) {
  const { outputFiles } = await build({ stdin: { contents, resolveDir }, bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', write: false })
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length
  console.log(`| ${name} | ${dependencies[name.split(/[/,]/)[0]] ?? 'here'} | ${size.toLocaleString('en')} |`)
}
