// What a person does with the client of web/client: a table of journeys, the same in Node, Deno, Bun and a page. Each returns
// what went wrong, as a list of sentences, and some counts.
export const journeys = { journey, rounds, durableRounds, visit, move }

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** A client for a journey, and what goes with it. The task is webTask of web_test.go. A token is used again for so many ms. */
function setOut({ Client, WebSocket, sse, durable, transport, url, strategy, control }, keepToken, options) {
  const wrong = []
  const states = []
  const order = async (path) => {
    const response = await fetch(control + path)
    if (!response.ok) throw new Error(`${path}: ${response.status}`)
    return response.text()
  }
  let minted = 0
  let kept
  // As an application's own: a token is used again until a part of its life is over.
  const token = async () => {
    if (!kept || Date.now() > kept.until) {
      minted++
      kept = { token: order('/token'), until: Date.now() + keepToken }
      kept.token.catch(() => (kept = undefined))
    }
    return kept.token
  }
  const ways = { strategy, WebSocket, sse, transport }
  const onState = (state, error) => states.push(error ? `${state}: ${error.message}` : state)
  const dial = (more, to = url) => new Client(to, { ...ways, token, onState, ...options, ...more })
  const client = dial()
  return {
    wrong,
    states,
    order,
    client,
    dial,
    minted: () => minted,
    /** Waits for it for a minute; seen is what has come so far. */
    async until(what, ok, seen) {
      for (let i = 0; !ok(); i++) {
        if (i === 3000) throw new Error(`did not happen: ${what}; states ${states.slice(-9)}; got ${JSON.stringify(seen.slice(-9))}`)
        await sleep(20)
      }
    },
    /** After this many restarts of the server. */
    cameBack(count) {
      const back = states.filter((state) => state === 'connected').length
      if (back < count) wrong.push(`${count} restarts, but connected ${back} times: ${states}`)
    },
    arrive(acked) {
      client.close()
      if (client.state !== 'closed') wrong.push('close() does not close')
      return { wrong, acked, minted, states: states.length }
    },
  }
}

// Order, refusals by code, tokens that live for seconds, a restart.
async function journey(task) {
  const { RefusedError, strategy, transport } = task
  const { wrong, states, order, client, dial, minted, until, arrive } = setOut(task, 3000, { backoff: { min: 50, max: 1000 } })
  let closing = false
  const got = []
  const subscription = client.subscribe('j.*', (event) => got.push(event.data), (error) => closing || wrong.push(`the subscription ended: ${error}`))
  await subscription.ready

  // A handshake that is refused is 1006 to a page; the client finds out why, and gives up after a few tokens.
  if (strategy === 'subprotocol' || strategy === 'ticket') {
    const forged = (await order('/token')).slice(0, -8) + 'AAAAAAAA'
    const end = await new Promise((resolve) => {
      dial({
        backoff: { min: 10, max: 20 },
        token: () => forged,
        onState: (state, error) => state === 'closed' && resolve(error),
      }).subscribe('j.*', () => {}, () => {})
    })
    // A connection of requests has no handshake: the first request for events is refused, and that closes it.
    if (transport === 'sse' ? end.code !== 4401 : !(end instanceof RefusedError) || end.code !== 'token_invalid') wrong.push(`a forged token: ${end}`)
  }

  // In the order of the calls, without waiting for answers between them.
  await Promise.all(Array.from({ length: 50 }, (_, i) => client.publish('j.a', i)))
  await until('50 events', () => got.length >= 50, got)
  if (got.some((n, i) => n !== i) || got.length !== 50) wrong.push(`order: ${got}`)

  // A refusal has its code and does not end anything.
  const refused = await client.publish('forbidden.topic', 1).then(() => undefined, (error) => error)
  if (!(refused instanceof RefusedError) || refused.code !== 'forbidden') wrong.push(`forbidden: ${refused}`)

  // For longer than two tokens live: every event that was acked arrives once and in order. Over SSE a new token is a new request
  // beside the old one; where a machine is so busy that one of them is half a second behind, an event may come twice or not at
  // all. That may be the last, so another one tells that all have had their time.
  got.length = 0
  const acked = []
  for (const end = Date.now() + 14_000; Date.now() < end; await sleep(100)) {
    const n = acked.length
    await client.publish('j.b', n).then(() => acked.push(n), (error) => wrong.push(`publish: ${error}`))
  }
  let asked = 0
  await until('an event behind the last', () => {
    if (asked++ % 50 === 0) client.publish('j.b', 'end').catch((error) => wrong.push(`publish: ${error}`))
    return got.includes('end')
  }, got)
  const had = got.slice(0, got.indexOf('end'))
  const once = [...new Set(had)]
  const odd = acked.length - once.length + had.length - once.length
  if (once.some((n, i) => i > 0 && n <= once[i - 1]) || odd > (transport === 'sse' ? 2 * minted() : 0)) wrong.push(`${acked.length} acked, got ${had}`)
  if (minted() < 3) wrong.push(`only ${minted()} tokens in 14 s`)

  // Another server comes in the place of this one: the client comes back by itself, and brings its subscription.
  const before = states.length
  await order('/restart')
  got.length = 0
  let back = 0
  await until('an event of the new server', () => {
    if (back++ % 10 === 0) client.publish('j.c', back).catch(() => {}) // some meet no server
    return got.length > 0
  }, got)
  if (!states.slice(before).includes('connected')) wrong.push(`states after the restart: ${states.slice(before)}`)
  if (states.some((s) => s.startsWith('closed'))) wrong.push(`the client gave up: ${states}`)

  closing = true
  return arrive(acked.length)
}

// A client that lives through restarts of the server, one each round, while its tokens are refreshed. What was published
// and acked between them arrives once and in order. Events that are published during a restart may be lost, since their topics
// are not durable, but none comes twice or late.
async function rounds(task) {
  const { wrong, states, order, client, until, cameBack, arrive } = setOut(task, 2000, { backoff: { min: 50, max: 500 } })
  const got = []
  const ended = []
  client.subscribe('j.*', (event) => got.push(event.data), (error) => ended.push(String(error)))
  let n = 0
  let acked = 0
  const missed = []
  const tell = async () => {
    const one = n++
    client.publish('j.a', one).catch(() => {})
    await sleep(20)
    return got.includes(one)
  }
  for (let round = 0; round < task.count; round++) {
    // Until an event comes back, the subscription may not be there yet.
    for (let i = 0; !(await tell()); i++) if (i === 3000) throw new Error(`nothing arrives in round ${round}; states ${states.slice(-9)}`)
    const these = Array.from({ length: 20 }, () => n++)
    await Promise.all(these.map((one) => client.publish('j.a', one).then(() => acked++, (error) => wrong.push(`round ${round}: ${error}`))))
    await until(`the events of round ${round}`, () => got.includes(these.at(-1)), got)
    missed.push(...these.filter((one) => !got.includes(one)))
    let over = false
    const restarted = order('/restart').then(() => (over = true))
    while (!over) await tell()
    await restarted
  }
  if (missed.length > 0) wrong.push(`acked and lost: ${missed}`)
  const odd = got.findIndex((one, i) => i > 0 && one <= got[i - 1])
  if (odd > 0) wrong.push(`twice or out of order: ${got.slice(Math.max(0, odd - 5), odd + 5)}`)
  if (ended.length > 0) wrong.push(`the subscription ended: ${ended}`)
  cameBack(task.count)
  return arrive(acked)
}

/** Options of a client of durable topics: what it finds wrong with their order goes to the journey's list. */
const durably = (task, wrong) => ({
  durable: task.durable,
  timeout: 4000,
  backoff: { min: 50, max: 500 },
  onError: (error) => error.name === 'OrderError' && wrong.push(String(error)),
})

// Publishes until it is stored: under its name it is stored once.
async function store(client, topic, data, { wrong, states }) {
  for (let i = 0; i < 1000; i++) {
    try {
      return await client.publish(topic, data, { msgId: `event-${data}` })
    } catch (error) {
      if (error.name === 'RefusedError' && !error.heals) return wrong.push(`publish ${data}: ${error}`)
      await sleep(50)
    }
  }
  wrong.push(`${data} is never stored; states ${states.slice(-9)}`)
}

// A client of durable topics that lives through restarts of the server and a network that is cut, one of each a round,
// while its tokens are refreshed: every event that was stored reaches each of its subscriptions once, in order.
async function durableRounds(task) {
  const strange = []
  const { wrong, states, order, client, cameBack, arrive } = setOut(task, 2000, durably(task, strange))
  const got = { 'd.*': [], 'd.1': [] }
  let over = false
  for (const pattern of Object.keys(got)) {
    client.subscribe(pattern, (event) => got[pattern].push(event.data), (error) => over || wrong.push(`${pattern} ended: ${error}`), {
      since: { seq: 0 },
      onGap: (gap) => wrong.push(`${pattern}: a gap, and nothing was discarded: ${JSON.stringify(gap)}`),
    })
  }
  let n = 0
  const publish = () => store(client, `d.${n % 3}`, n++, { wrong, states })
  for (let round = 0; round < task.count; round++) {
    for (const trouble of ['/restart', '/cut']) {
      for (let i = 0; i < 20; i++) await publish()
      let done = false
      const happens = order(trouble).then(() => (done = true))
      while (!done) await publish().then(() => sleep(20))
      await happens
    }
  }
  for (let i = 0; i < 20; i++) await publish()
  for (const [pattern, had] of Object.entries(got)) {
    const want = Array.from({ length: n }, (_, i) => i).filter((i) => pattern === 'd.*' || i % 3 === 1)
    for (let i = 0; had.length < want.length && i < 3000; i++) await sleep(20)
    const odd = want.findIndex((one, i) => had[i] !== one)
    if (odd >= 0 || had.length !== want.length) wrong.push(`${pattern}: ${want.length} stored, ${had.length} came; from ${odd} on ${had.slice(Math.max(0, odd - 3), odd + 5)}; states ${states.slice(-9)}`)
  }
  cameBack(task.count)
  over = true
  wrong.push(...strange)
  return arrive(n)
}

// A short visit: events live, a client that comes later and goes on where the first one stood, and a restart of the server.
async function visit(task) {
  const strange = []
  const { wrong, states, order, client, dial, until, arrive } = setOut(task, 2000, durably(task, strange))
  const got = []
  const live = []
  const stored = (from, to) => Promise.all(Array.from({ length: to - from }, (_, i) => store(client, 'd.1', from + i, { wrong, states })))
  const orders = client.subscribe('d.*', (event) => got.push(event.data), undefined, { since: { seq: 0 } })
  await Promise.all([orders.ready, client.subscribe('j.*', (event) => live.push(event.data)).ready])
  await client.publish('j.a', { text: 'hello' })
  await stored(0, 10)
  await until('the first events', () => got.length >= 10 && live.length > 0, got)
  if (JSON.stringify(live) !== '[{"text":"hello"}]') wrong.push(`live: ${JSON.stringify(live)}`)
  const since = orders.position
  orders.unsubscribe()
  await stored(10, 20)
  await order('/restart')
  await stored(20, 30)
  const later = dial({ onState: undefined })
  later.subscribe('d.*', (event) => got.push(event.data), undefined, { since })
  await until('the rest', () => got.length >= 30, got)
  later.close()
  const want = Array.from({ length: 30 }, (_, i) => i)
  if (String(got) !== String(want)) wrong.push(`stored ${want}, got ${got}`)
  wrong.push(...strange)
  return arrive(got.length)
}

// A node says that it restarts, and another one is there: no event is lost and none comes twice, whether its topic is durable or
// not. The events are published at the other node. Of topics that are not durable up to three may be missing or come
// twice, since on a machine that is busy a node may be further behind the other than the client waits.
async function move(task) {
  const strange = []
  const { wrong, states, order, client, dial, until, arrive } = setOut(task, 2000, durably(task, strange))
  const got = { 'j.*': [], 'd.*': [] }
  for (const pattern of Object.keys(got)) await client.subscribe(pattern, (event) => got[pattern].push(event.data)).ready
  const publisher = dial({ onState: undefined, transport: 'websocket' }, task.other)
  let n = 0
  const publish = () => Promise.all(['j.a', 'd.1'].map((topic) => publisher.publish(topic, n))).then(() => n++, (error) => wrong.push(`publish: ${error}`))
  await publish()
  let over = false
  const happens = order('/move').then(() => (over = true))
  while (!over) await publish().then(() => sleep(5))
  await happens
  for (let i = 0; i < 20; i++) await publish()
  for (const [pattern, had] of Object.entries(got)) {
    await until(`the last event of ${pattern}`, () => had.includes(n - 1), had)
    const once = pattern === 'd.*' ? had : [...new Set(had)]
    const odd = once.findIndex((one, i) => i > 0 && one <= once[i - 1])
    if (odd >= 0 || n - once.length + had.length - once.length > (pattern === 'd.*' ? 0 : 3)) wrong.push(`${pattern}: ${n} published, ${had.length} came; from ${odd} on ${had.slice(Math.max(0, odd - 3), odd + 5)}`)
  }
  if (String(states) !== 'connected') wrong.push(`not moved, but: ${states}`)
  publisher.close()
  wrong.push(...strange)
  return arrive(n)
}
