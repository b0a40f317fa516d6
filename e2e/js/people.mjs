// People at pages in headless Chromium, each with a browser profile of their own, who do what they are told as lines: see
// people in example_pages_test.go. A line is {"who":NAME, "go":URL}, {"who":NAME, "reload":true}, {"who":NAME,
// "click":LABEL}, {"who":NAME, "write":TEXT, "into":LABEL} (and Enter), {"who":NAME, "look":true}, {"who":NAME,
// "audit":FILE} (by axe-core, which is that file) or {"who":NAME, "picture":FILE}. The answer is {"text":…, "title":…, "address":…, "wrong":[…]}: what the page shows then, its name, where it is, and
// what it and the browser complained of since the last answer.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const browser = await chromium.launch({
  executablePath: process.argv[2],
  headless: true,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
})
const people = new Map()

async function arrive(name) {
  const context = await browser.newContext({ viewport: { width: 800, height: 600 } })
  const page = await context.newPage()
  const person = { page, wrong: [] }
  page.setDefaultTimeout(30_000)
  page.on('pageerror', (error) => person.wrong.push(String(error)))
  page.on('console', (message) => message.type() === 'error' && person.wrong.push(message.text()))
  people.set(name, person)
  return person
}

/** What axe-core finds in a page, in light, in dark and at the width of a phone. */
async function audit({ page, wrong }, axe) {
  await page.evaluate(readFileSync(axe, 'utf8'))
  for (const [colorScheme, width] of [['light', 800], ['dark', 800], ['light', 390]]) {
    await page.emulateMedia({ colorScheme })
    await page.setViewportSize({ width, height: 800 })
    const { violations } = await page.evaluate(() => globalThis.axe.run())
    for (const { id, impact, nodes } of violations) wrong.push(`${colorScheme}, ${width} pixels: ${impact}: ${id}: ${nodes.map((n) => `${n.target} ${n.failureSummary}`).join('; ')}`)
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    if (wide > 0) wrong.push(`it is ${wide} pixels wider than a window of ${width}`)
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line)
  const person = people.get(order.who) ?? (await arrive(order.who))
  const { page } = person
  try {
    if (order.go) await page.goto(order.go)
    if (order.reload) await page.reload()
    if (order.click) await page.getByRole('button', { name: order.click }).click()
    if (order.write) {
      await page.getByLabel(order.into).fill(order.write)
      await page.getByLabel(order.into).press('Enter')
    }
    if (order.audit) await audit(person, order.audit)
    if (order.picture) await page.screenshot({ path: order.picture })
  } catch (error) {
    person.wrong.push(String(error))
  }
  const answer = { text: await page.evaluate(() => document.body.innerText), title: await page.title(), address: page.url(), wrong: person.wrong.splice(0) }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await browser.close()
