// A page in headless Chromium that holds a WebSocket, driven by lines: see dialScript.
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const [url, page_url, executablePath] = process.argv.slice(2)
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')

const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
})
const page = await browser.newPage()
await page.exposeFunction('say', say)
await page.goto(page_url)
await page.evaluate((url) => {
  window.socket = new WebSocket(url, 'notifyd.v1')
  socket.onopen = () => say(socket.protocol === 'notifyd.v1' ? { open: true } : { close: 0 })
  socket.onmessage = (event) => say(event.data)
  socket.onclose = (event) => say({ close: event.code })
}, url)

for await (const line of createInterface({ input: process.stdin })) {
  await page.evaluate((frame) => socket.send(frame), JSON.parse(line))
}
await browser.close()
