// A journey of steps.mjs in Node, Deno or Bun. Arguments: the client's folder, and a task as JSON: which journey, and what it
// needs. Node 20 has no WebSocket.
import { pathToFileURL } from 'node:url'
import { journeys } from './steps.mjs'

const [dist, task] = process.argv.slice(2)
const { journey, ...rest } = JSON.parse(task)
const { Client, RefusedError } = await import(pathToFileURL(`${dist}/index.js`))
const { durable } = await import(pathToFileURL(`${dist}/durable.js`))
const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket
const { sse } = await import(pathToFileURL(`${dist}/sse.js`))
process.stdout.write(JSON.stringify(await journeys[journey]({ Client, RefusedError, WebSocket, sse, durable, ...rest })) + '\n')
