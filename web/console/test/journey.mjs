// What a person does in the console, in headless Chromium. The argument is JSON: the task's name, where the page is, where
// Chromium is, and what the task needs. The output is JSON: what is wrong, as a list. e2e/console_test.go starts it.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const task = JSON.parse(process.argv[2])
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const wrong = []
const browser = await chromium.launch({
  executablePath: task.chromium,
  headless: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})

/** Network errors are what a page logs while its server is away. */
const expected = /Failed to load resource|WebSocket connection to|net::ERR/

async function open(options = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1360, height: 860 }, ...options })).newPage()
  page.setDefaultTimeout(60_000)
  page.on('console', (m) => m.type() === 'error' && !expected.test(m.text()) && wrong.push(`the page logs: ${m.text()}`))
  page.on('pageerror', (e) => wrong.push(`the page fails: ${e.message}`))
  await page.goto(task.page)
  return page
}

const button = (page, name) => page.getByRole('button', { name, exact: true })
const panel = (page, name) => page.getByRole('region', { name, exact: true })
/** Waits until the part shows the text. */
const shows = (part, text) => part.getByText(text).first().waitFor()
const view = (page, name) => page.getByRole('navigation').getByRole('link', { name }).click()

async function subscribe(page, pattern, from) {
  const part = panel(page, 'Subscriptions')
  await part.getByLabel('Topic or pattern').fill(pattern)
  await part.getByRole('combobox', { name: 'From' }).selectOption(from)
  await button(part, 'Subscribe').click()
}

async function publish(page, topic, data) {
  const part = panel(page, 'Publish')
  await part.getByLabel('Topic', { exact: true }).fill(topic)
  await part.getByLabel('Data (JSON)').fill(JSON.stringify(data))
  await button(part, 'Publish').click()
}

async function use(page, token) {
  await panel(page, 'Connection').getByRole('textbox', { name: /token$/i }).fill(token)
  await button(page, 'Use').click()
}

async function mint(page, seconds) {
  const part = panel(page, 'Connection')
  if (!(await button(part, 'Mint and use').isVisible())) await part.getByText('Mint a token').click()
  await part.getByLabel('Lasts, in seconds').fill(String(seconds))
  await button(part, 'Mint and use').click()
}

async function connect(page, strategy) {
  const part = panel(page, 'Connection')
  if (await button(part, 'Disconnect').isVisible()) await button(part, 'Disconnect').click()
  await part.getByLabel('Strategy').selectOption(strategy)
  await button(part, 'Connect').click()
  await shows(part, /connected to/)
}

/** Nothing that axe-core calls serious, in the view as it is. */
async function accessible(page, name) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run())
  for (const { id, impact, nodes } of violations) {
    if (['serious', 'critical'].includes(impact)) wrong.push(`${name}: ${impact}: ${id}: ${nodes.map((n) => `${n.target} ${n.failureSummary}`).join('; ').slice(0, 600)}`)
  }
}

/** What a person does who has just started a server, and a token's end. */
async function tryOut() {
  const page = await open()
  const sent = []
  page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => payload.includes('"ping') || sent.push(JSON.parse(payload))))
  const events = panel(page, 'Events')
  await shows(panel(page, 'Connection'), 'Connect mints one')
  await button(page, 'Connect').click() // three buttons to the first event
  await shows(panel(page, 'Connection'), /connected to/)
  await button(page, 'Subscribe').click()
  await shows(panel(page, 'Subscriptions'), 'live')
  await button(page, 'Publish').click()
  await shows(events, '{"text":"hello"}')
  await publish(page, 'demo.hello', { text: 'by message' })
  await shows(panel(page, 'Publish'), /^ack/)
  await shows(events, '{"text":"by message"}')

  // The secret with which it has tokens made stands nowhere.
  const [, secret] = task.page.split('#mint=')
  const seen = () => page.evaluate(() => JSON.stringify([location.href, { ...localStorage }, { ...sessionStorage }, document.cookie, document.body.innerHTML]))
  if ((await seen()).includes(secret)) wrong.push('the page shows or keeps the secret')

  // A token for each message, which is good for that alone and once.
  const part = panel(page, 'Publish')
  await part.getByText('Token, ttl, msg_id').click()
  await part.getByLabel('Mint a token for each message').check()
  for (const text of ['under its own', 'under another one']) {
    await publish(page, 'demo.hello', { text })
    await shows(events, `{"text":"${text}"}`)
    const { type, token } = sent.at(-1)
    const { notify } = JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')))
    if (type !== 'publish' || !notify.once || !notify.digest || String(notify.publish) !== 'demo.hello' || notify.subscribe) wrong.push(`the ${type} is under ${JSON.stringify(notify)}`)
  }
  await part.getByLabel('Mint a token for each message').uncheck()
  await part.getByText('Token, ttl, msg_id').click()

  await view(page, 'Node')
  await page.locator('figure', { hasText: 'Delivery, p99' }).locator('b').filter({ hasText: /^\d/ }).waitFor()
  await view(page, 'Live')

  for (const strategy of ['first-message', 'subprotocol', 'ticket', 'query']) {
    await connect(page, strategy)
    await shows(panel(page, 'Subscriptions'), 'live')
    await publish(page, 'demo.hello', { text: `by ${strategy}` })
    await shows(events, `{"text":"by ${strategy}"}`)
  }

  // A filter, a pause, and the keyboard alone.
  await events.getByLabel('Filter').fill('ticket')
  await shows(events, /^1 of 8 shown/)
  await events.getByLabel('Filter').fill('')
  await button(events, 'Pause').click()
  await publish(page, 'demo.hello', { text: 'while paused' })
  await shows(events, 'Go on (1 wait)')
  if (await events.getByText('while paused').isVisible()) wrong.push('an event is shown while the list is paused')
  await page.getByText('Go on (1 wait)').press('Enter')
  await shows(events, '{"text":"while paused"}')
  await events.getByRole('listbox').focus()
  await page.keyboard.press('Home')
  for (let i = 0; i < 4; i++) await page.keyboard.press('ArrowDown')
  await shows(events.getByRole('group'), /by first-message/)

  // Refusals say what they mean.
  await publish(page, 'not a topic', 1)
  await shows(panel(page, 'Publish'), 'The topic or pattern breaks the grammar.')
  await subscribe(page, 'demo.hello', 'all')
  await shows(panel(page, 'Subscriptions'), 'history_unavailable')
  await page.getByRole('button', { name: 'Unsubscribe from demo.hello' }).click()

  // A message under a token of its own: what is wrong with that is nothing to the connection.
  await panel(page, 'Publish').getByText('Token, ttl, msg_id').click()
  await panel(page, 'Publish').getByLabel('Token for this message').fill(task.foreign)
  await publish(page, 'demo.hello', 1)
  await shows(panel(page, 'Publish'), 'token_invalid')
  await panel(page, 'Publish').getByLabel('Token for this message').fill('')
  await panel(page, 'Publish').getByLabel('msg_id').fill('once')
  for (const answer of [/^ack seq 1/, /^ack seq 1, a duplicate/]) {
    await publish(page, 'orders.7', 1)
    await shows(panel(page, 'Publish'), answer)
  }
  await panel(page, 'Publish').getByLabel('msg_id').fill('')
  if (await page.getByText('Another token is needed').isVisible()) wrong.push('the token of a message counts for the connection')

  // A token's end: the page says so before and after, and goes on under another one, on the same connection.
  await mint(page, 8)
  await connect(page, 'message')
  await shows(panel(page, 'Connection'), /Another token is needed/)
  await shows(panel(page, 'Connection'), /^expired/)
  await shows(panel(page, 'Subscriptions'), 'waits for a token')
  await mint(page, 600)
  await shows(panel(page, 'Subscriptions'), 'live')
  await publish(page, 'demo.hello', { text: 'under the next token' })
  await shows(events, '{"text":"under the next token"}')

  // One that is replaced by itself is never missed.
  await panel(page, 'Connection').getByLabel('Mint the next one by itself').check()
  await mint(page, 8)
  await page.waitForTimeout(10_000) // until it has expired
  await shows(panel(page, 'Connection'), /^expires in/)
  await publish(page, 'demo.hello', { text: 'under one that came by itself' })
  await shows(events, '{"text":"under one that came by itself"}')
  await panel(page, 'Connection').getByLabel('Mint the next one by itself').uncheck()

  // A token of a stranger is refused, and the page says at which check.
  await use(page, task.foreign)
  await shows(panel(page, 'Connection'), 'key')
  await shows(panel(page, 'Connection'), /is not among/)
  await page.getByRole('link', { name: 'All checks' }).click()
  await shows(panel(page, 'Checks'), 'token_invalid')
  await shows(panel(page, 'Token'), 'Without iat')
  const failed = await panel(page, 'Checks').locator('tr.failed th').innerText()
  if (failed !== 'key') wrong.push(`the check that failed is ${failed}`)

  // A token is kept where the person says so, and nowhere else.
  const kept = () => page.evaluate(() => JSON.stringify([location.href, { ...localStorage }, { ...sessionStorage }, document.cookie]))
  if ((await kept()).includes('eyJ')) wrong.push('a token is kept that nobody asked to keep')
  await view(page, 'Live')
  await page.getByLabel('Keep it in this browser').check()
  if (!(await kept()).includes('eyJ')) wrong.push('the token is not kept')
  await page.reload()
  await shows(panel(page, 'Connection'), 'Token of')

  // A page that was loaded again has the secret no more, until it is given the address again.
  await shows(panel(page, 'Connection'), 'To have tokens made here')
  await page.evaluate((hash) => (location.hash = hash), `mint=${secret}`)
  await shows(panel(page, 'Connection'), 'Mint a token')
  await page.evaluate(() => (location.hash = 'mint=wrong'))
  await shows(panel(page, 'Connection'), 'To have tokens made here')
  await page.getByLabel('Keep it in this browser').uncheck()
  if ((await kept()).includes('eyJ')) wrong.push('the token is still kept')

  await view(page, 'Node')
  await shows(panel(page, 'Node'), 'NATS connected')
  await shows(panel(page, 'Node'), 'Round trip, p99')
  await view(page, 'Errors')
  for (const code of task.codes) await shows(page.getByRole('rowheader', { name: code, exact: true }), code)
}

/** Each view, as axe-core and as phones see it; with task.shots a picture of each. */
async function look() {
  const looks = {
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
    phone: { colorScheme: 'light', viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
  }
  for (const [name, options] of Object.entries(looks)) {
    const page = await open({ ...options, bypassCSP: true }) // for axe-core
    await mint(page, 600)
    await connect(page, 'message')
    await subscribe(page, 'demo.>', 'now')
    await subscribe(page, 'orders.>', 'all')
    await subscribe(page, 'demo.x', 'last')
    await panel(page, 'Subscriptions').getByLabel('Events', { exact: true }).fill('5')
    await button(panel(page, 'Subscriptions'), 'Subscribe').click()
    await shows(panel(page, 'Subscriptions'), 'history_unavailable')
    for (let i = 0; i < 8; i++) {
      await publish(page, i % 2 ? 'orders.7' : 'demo.hello', { n: i, text: 'hello' })
      await shows(panel(page, 'Events'), `"n":${i},`)
    }
    await publish(page, 'not a topic', 1)
    await shows(panel(page, 'Publish'), 'bad_topic')
    await panel(page, 'Events').getByRole('listbox').focus()
    await page.keyboard.press('End')
    for (const title of ['Live', 'History', 'Token', 'Node', 'Errors']) {
      await view(page, title)
      if (title === 'History') {
        await page.getByLabel('Topic or pattern').fill('orders.>')
        await button(page, 'Read').click()
        await shows(page, /stream/)
      }
      if (title === 'Token') await shows(page, 'valid here')
      if (title === 'Node') await shows(panel(page, 'Streams'), 'orders')
      await accessible(page, `${title}, ${name}`)
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      if (wide > 0) wrong.push(`${title}, ${name}: it is ${wide} pixels wider than the window`)
      const cut = await page.evaluate(() => {
        const pen = document.createElement('canvas').getContext('2d')
        return [...document.querySelectorAll('select')].flatMap((select) => {
          pen.font = getComputedStyle(select).font
          const room = select.clientWidth - 36 // its padding and its arrow
          return [...select.options].map(({ text }) => text).filter((text) => pen.measureText(text).width > room)
        })
      })
      if (cut.length > 0) wrong.push(`${title}, ${name}: these choices are cut: ${cut}`)
      await page.evaluate(() => scrollTo(0, 0))
      if (task.shots) await page.screenshot({ path: `${task.shots}/${name}-${title.toLowerCase()}.png`, fullPage: true })
    }
    await page.context().close()
  }
}

async function control(what) {
  const response = await fetch(`${task.control}/${what}`, { method: 'POST' })
  if (!response.ok) wrong.push(`${what}: ${await response.text()}`)
}

/** The server is killed and comes back, and nothing is missing; nor after a time without a connection. */
async function resume() {
  const page = await open()
  const events = panel(page, 'Events')
  await control('publish')
  await use(page, task.token)
  await connect(page, 'first-message')
  await subscribe(page, 'orders.>', 'all')
  await shows(panel(page, 'Subscriptions'), '1 events, at seq 1')
  await control('kill')
  await shows(panel(page, 'Connection'), /waits to connect again|connecting/)
  await control('start')
  await control('publish')
  await shows(panel(page, 'Subscriptions'), '2 events, at seq 2')
  await shows(panel(page, 'Connection'), /connected to/)
  await publish(page, 'orders.7', { n: 3 })
  await shows(events, '{"n":3}')
  await button(page, 'Disconnect').click()
  await shows(panel(page, 'Connection'), 'not connected')
  await control('publish')
  await button(page, 'Connect').click()
  await shows(panel(page, 'Subscriptions'), '4 events, at seq 4')
  const seqs = (await events.getByRole('option').locator('.seq').allInnerTexts()).join()
  if (seqs !== '1,2,3,4') wrong.push(`the events are ${seqs}`)
  if (await button(page, 'Mint and use').count()) wrong.push('this server offers to mint tokens')

  await view(page, 'History')
  await page.getByLabel('Topic or pattern').fill('orders.>')
  await page.getByLabel('Limit').fill('3')
  await button(page, 'Read').click()
  await shows(page, /3 events/)
  await button(page, 'Next page').click()
  await shows(page, /1 events/)
}

/** NATS is away under the node, and comes back: the page says so, the connection stays, and events come again. */
async function withoutNATS() {
  const page = await open()
  const events = panel(page, 'Events')
  await use(page, task.token)
  await connect(page, 'first-message')
  await subscribe(page, 'demo.>', 'now')
  await subscribe(page, 'orders.>', 'all')
  let n = 0
  const publishes = async () => {
    for (const topic of ['demo.hello', 'orders.7']) {
      await publish(page, topic, { n: ++n })
      await shows(events, `{"n":${n}}`)
    }
  }
  await publishes()
  for (const [away, back] of [['stop', 'continue'], ['kill', 'start']]) {
    await control(away)
    const alert = page.getByRole('alert').filter({ hasText: 'NATS is unreachable' })
    await shows(alert, 'Does nats-server run')
    await shows(page.getByRole('banner'), 'not ready')
    await publish(page, 'demo.hello', 'lost')
    await shows(panel(page, 'Publish'), 'are out of reach, so that nobody can say now')
    await shows(panel(page, 'Connection'), /connected to/)
    await view(page, 'Node')
    await shows(panel(page, 'Node'), 'NATS unreachable')
    await alert.waitFor()
    await view(page, 'Live')
    await control(back)
    await alert.waitFor({ state: 'detached' })
    await shows(page.getByRole('banner'), 'node ready')
    await publishes()
    await shows(panel(page, 'Connection'), /connected to/)
  }
  const seqs = (await events.getByRole('option').locator('.seq').allInnerTexts()).filter(Boolean).join()
  if (seqs !== '1,2,3') wrong.push(`the events of the stream are ${seqs}`)
}

try {
  await { tryOut, look, resume, withoutNATS }[task.name]()
} catch (error) {
  wrong.push(`${error.stack}`)
  const page = browser.contexts().at(-1)?.pages().at(-1)
  if (page) wrong.push(`the page shows:\n${await page.evaluate(() => document.body.innerText).catch(String)}`)
  if (page && task.shots) await page.screenshot({ path: `${task.shots}/failed.png`, fullPage: true })
}
process.stdout.write(JSON.stringify(wrong) + '\n')
await browser.close()
