// The steps of steps.mjs in Node. Arguments: the client's folder, and a task as JSON: which steps, and what they need.
import { pathToFileURL } from 'node:url'
import { WebSocket } from 'ws'
import * as steps from './steps.mjs'

const [dist, task] = process.argv.slice(2)
const { steps: which, ...rest } = JSON.parse(task)
const { Client, RefusedError } = await import(pathToFileURL(`${dist}/index.js`))
const { durable } = await import(pathToFileURL(`${dist}/durable.js`))
const { sse } = await import(pathToFileURL(`${dist}/sse.js`))
process.stdout.write(JSON.stringify(await steps[which]({ Client, RefusedError, WebSocket, sse, durable, ...rest })) + '\n')
