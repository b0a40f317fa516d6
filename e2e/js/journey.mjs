// The journey of steps.mjs in Node. Arguments: the client's folder, URL, strategy, URL of the test that mints and restarts.
import { pathToFileURL } from 'node:url'
import { WebSocket } from 'ws'
import { journey } from './steps.mjs'

const [dist, url, strategy, control] = process.argv.slice(2)
const { Client, RefusedError } = await import(pathToFileURL(`${dist}/index.js`))
process.stdout.write(JSON.stringify(await journey({ Client, RefusedError, WebSocket, url, strategy, control })) + '\n')
