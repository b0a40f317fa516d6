// page.mjs PATH [firefox]: pages in headless Chromium, or Firefox, that do what they are told, as lines: see browser in
// browser_test.go. A line is
// {"page":URL, "fetch":{url, …}}, {"page":URL, "socket":{url, protocols}} or {"page":URL, "code":{source, token}}, done by
// a page that was loaded from there; the answer is {"status":…, "body":…}, {"open":true, "protocol":…, "first":FRAME} or
// {"error":…}. The code makes a socket that asks for something with id 1; what answers that is "first". Two more:
// {"page":URL, "console":{source, token}} answers with what the code writes to the console first, and
// {"page":URL, "text":{reload}} with what the page shows, both as "body". {"page":URL, "task":{source, task}} answers
// with what the code, which is given the task, returns: as JSON in "body"; in Chromium, "protocols" has how the page has spoken
// with each path: /v1/events h2. A WebSocket is the status of its handshake: 101, or 200 within HTTP/2 (RFC 8441).
import { createInterface } from 'node:readline'

const [executablePath, firefox] = process.argv.slice(2)
const protocols = new Set()
let browser, page // proxies under test have certificates of their own
if (firefox) {
  const { launch } = await import('puppeteer-core')
  browser = await launch({ browser: 'firefox', executablePath, headless: true, acceptInsecureCerts: true, protocolTimeout: 3_600_000 })
  page = await browser.newPage()
} else {
  const { chromium } = await import('playwright-core')
  browser = await chromium.launch({
    executablePath,
    headless: true,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  })
  page = await browser.newPage({ ignoreHTTPSErrors: true })
  const network = await page.context().newCDPSession(page)
  network.on('Network.responseReceived', ({ response: { url, protocol } }) => protocols.add(`${new URL(url).pathname} ${protocol}`))
  network.on('Network.webSocketHandshakeResponseReceived', ({ response: { status } }) => protocols.add(`WebSocket ${status}`))
  await network.send('Network.enable')
}

async function request({ url, ...options }) {
  try {
    const response = await fetch(url, options)
    return { status: response.status, body: await response.text() }
  } catch (error) {
    return { error: String(error) }
  }
}

function connect({ url, protocols }) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, protocols)
    socket.onmessage = ({ data }) => resolve({ open: true, protocol: socket.protocol, first: data })
    socket.onclose = ({ code }) => resolve({ error: `closed with ${code}` })
  })
}

async function run({ source, token }) {
  const socket = await new Function('token', `return (async () => { ${source}\n return socket })()`)(token)
  return new Promise((resolve) => {
    socket.onmessage = ({ data }) => JSON.parse(data).id === '1' && resolve({ open: true, protocol: socket.protocol, first: data })
    socket.onclose = ({ code }) => resolve({ error: `closed with ${code}` })
  })
}

function firstOutput({ source, token }) {
  return new Promise((resolve) => {
    const write = (...values) => resolve({ body: values.map((v) => (typeof v === 'string' ? v : JSON.stringify(v))).join(' ') })
    new Function('token', 'console', source)(token, { log: write, warn: write })
  })
}

const text = () => ({ body: document.body.innerText })

async function perform({ source, task }) {
  const result = await new Function('task', `return (async () => { ${source} })()`)(task)
  return { body: JSON.stringify(result) }
}

// there goes to a page. A site that has said that it is there may not listen yet.
async function there(go) {
  for (let i = 0; ; i++) {
    try {
      return await go()
    } catch (error) {
      if (i === 100 || !String(error).includes('ERR_CONNECTION_REFUSED')) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

const doings = { fetch: request, socket: connect, code: run, console: firstOutput, text, task: perform }

const lines = createInterface({ input: process.stdin })
lines.on('close', () => browser.close().finally(() => process.exit())) // also amid a task: Firefox would stay
for await (const line of lines) {
  const order = JSON.parse(line)
  if (page.url() !== order.page) await there(() => page.goto(order.page))
  if (order.text?.reload) await there(() => page.reload())
  const what = Object.keys(doings).find((name) => order[name])
  const answer = await page.evaluate(doings[what], order[what]).catch((error) => ({ error: String(error) }))
  process.stdout.write(JSON.stringify({ ...answer, protocols: [...protocols] }) + '\n')
}
