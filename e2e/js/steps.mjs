// What a person does with the client of web/client in the journey of web_test.go; the same in Node and in a page. It
// returns what went wrong, as a list of sentences, and some counts.
export async function journey({ Client, RefusedError, WebSocket, sse, transport, url, strategy, control }) {
  const wrong = []
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
  const order = async (path) => {
    const response = await fetch(control + path)
    if (!response.ok) throw new Error(`${path}: ${response.status}`)
    return response.text()
  }
  let minted = 0
  let closing = false
  let kept
  const client = new Client(url, {
    strategy,
    WebSocket,
    sse,
    transport,
    backoff: { min: 50, max: 1000 },
    // As an application's own: a token is used again until half of its life is over.
    token: async () => {
      if (!kept || Date.now() > kept.until) {
        minted++
        kept = { token: order('/token'), until: Date.now() + 3000 }
      }
      return kept.token
    },
    onState: (state, error) => states.push(error ? `${state}: ${error.message}` : state),
  })
  const states = []
  const got = []
  const subscription = client.subscribe('j.*', (event) => got.push(event.data), (error) => closing || wrong.push(`the subscription ended: ${error}`))
  await subscription.ready

  const until = async (what, ok) => {
    for (let i = 0; !ok(); i++) {
      if (i === 3000) throw new Error(`did not happen: ${what}; states ${states}; got ${JSON.stringify(got.slice(-5))}`)
      await sleep(20)
    }
  }

  // A handshake that is refused is 1006 to a page; the client finds out why, and gives up after a few tokens.
  if (strategy === 'subprotocol' || strategy === 'ticket') {
    const forged = (await order('/token')).slice(0, -8) + 'AAAAAAAA'
    const end = await new Promise((resolve) => {
      new Client(url, {
        strategy, WebSocket, sse, transport, backoff: { min: 10, max: transport === 'sse' ? 1000 : 20 }, token: () => forged,
        onState: (state, error) => state === 'closed' && resolve(error),
      }).subscribe('j.*', () => {}, () => {})
    })
    // A connection of requests has no handshake: the first request for events is refused, and that closes it.
    if (transport === 'sse' ? end.code !== 4401 : !(end instanceof RefusedError) || end.code !== 'token_invalid') wrong.push(`a forged token: ${end}`)
  }

  // In the order of the calls, without waiting for answers between them.
  await Promise.all(Array.from({ length: 50 }, (_, i) => client.publish('j.a', i)))
  await until('50 events', () => got.length >= 50)
  if (got.some((n, i) => n !== i) || got.length !== 50) wrong.push(`order: ${got}`)

  // A refusal has its code and does not end anything.
  const refused = await client.publish('forbidden.topic', 1).then(() => undefined, (error) => error)
  if (!(refused instanceof RefusedError) || refused.code !== 'forbidden') wrong.push(`forbidden: ${refused}`)

  // For longer than two tokens live: every event that was acked arrives once and in order.
  got.length = 0
  const acked = []
  for (const end = Date.now() + 14_000; Date.now() < end; await sleep(100)) {
    await client.publish('j.b', acked.length).then(() => acked.push(acked.length), (error) => wrong.push(`publish: ${error}`))
  }
  await until('the last of them', () => got.at(-1) >= acked.length - 1)
  // Over SSE a new token is a new request, beside the old one for a moment: an event on its way then may come by both, or none.
  const once = transport === 'sse' ? got.filter((n, i) => n !== got[i - 1]) : got
  const missed = acked.length - once.length
  const ordered = once.every((n, i) => (i === 0 ? n >= 0 : n > once[i - 1]))
  if (!ordered || missed < 0 || missed > (transport === 'sse' ? minted : 0) || got.length - once.length > minted) wrong.push(`${acked.length} acked, got ${got}`)
  if (minted < 3) wrong.push(`only ${minted} tokens in 14 s`)

  // Another server comes in the place of this one: the client comes back by itself, and brings its subscription.
  const before = states.length
  await order('/restart')
  got.length = 0
  let back = 0
  await until('an event of the new server', () => {
    if (back++ % 10 === 0) client.publish('j.c', back).catch(() => {}) // some meet no server
    return got.length > 0
  })
  if (!states.slice(before).includes('connected')) wrong.push(`states after the restart: ${states.slice(before)}`)
  if (states.some((s) => s.startsWith('closed'))) wrong.push(`the client gave up: ${states}`)

  closing = true
  client.close()
  if (client.state !== 'closed') wrong.push('close() does not close')
  return { wrong, acked: acked.length, minted, states: states.length }
}

// A client that lives through restarts of the server, one each round, while its tokens are refreshed. What was published
// and acked between them arrives once and in order. Events that are published during a restart may be lost, since their topics
// are not durable, but none comes twice or late. It returns the same as journey.
export async function rounds({ Client, WebSocket, sse, transport, url, strategy, control, count }) {
  const wrong = []
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
  const order = async (path) => (await fetch(control + path)).text()
  let minted = 0
  let kept
  const states = []
  const client = new Client(url, {
    strategy,
    WebSocket,
    sse,
    transport,
    backoff: { min: 50, max: 500 },
    token: async () => {
      if (!kept || Date.now() > kept.until) {
        minted++
        kept = { token: order('/token'), until: Date.now() + 2000 }
      }
      return kept.token
    },
    onState: (state, error) => states.push(error ? `${state}: ${error.message}` : state),
  })
  const got = []
  const ended = []
  client.subscribe('j.*', (event) => got.push(event.data), (error) => ended.push(String(error)))
  const until = async (what, ok) => {
    for (let i = 0; !ok(); i++) {
      if (i === 3000) throw new Error(`did not happen: ${what}; states ${states.slice(-9)}; got ${got.slice(-9)}`)
      await sleep(20)
    }
  }
  let n = 0
  let acked = 0
  const missed = []
  const tell = async () => {
    const one = n++
    client.publish('j.a', one).catch(() => {})
    await sleep(20)
    return got.includes(one)
  }
  for (let round = 0; round < count; round++) {
    // Until an event comes back, the subscription may not be there yet.
    for (let i = 0; !(await tell()); i++) if (i === 3000) throw new Error(`nothing arrives in round ${round}; states ${states.slice(-9)}`)
    const these = Array.from({ length: 20 }, () => n++)
    await Promise.all(these.map((one) => client.publish('j.a', one).then(() => acked++, (error) => wrong.push(`round ${round}: ${error}`))))
    await until(`the events of round ${round}`, () => got.includes(these.at(-1)))
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
  const back = states.filter((state) => state === 'connected').length
  if (back < count) wrong.push(`${count} restarts, but connected ${back} times: ${states}`)
  client.close()
  return { wrong, acked, minted, states: states.length }
}

// A client of durable topics that lives through restarts of the server and a network that is cut, one of each a round,
// while its tokens are refreshed: every event that was stored reaches each of its subscriptions once, in order. It
// returns the same as journey.
export async function durableRounds({ Client, durable, WebSocket, sse, transport, url, strategy, control, count }) {
  const wrong = []
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
  const order = async (path) => (await fetch(control + path)).text()
  let minted = 0
  let kept
  const states = []
  const client = new Client(url, {
    strategy,
    WebSocket,
    sse,
    transport,
    durable,
    timeout: 4000,
    backoff: { min: 50, max: 500 },
    token: async () => {
      if (!kept || Date.now() > kept.until) {
        minted++
        kept = { token: order('/token'), until: Date.now() + 2000 }
        kept.token.catch(() => (kept = undefined))
      }
      return kept.token
    },
    onState: (state, error) => states.push(error ? `${state}: ${error.message}` : state),
    onError: (error) => error.name === 'OrderError' && wrong.push(String(error)),
  })
  const got = { 'd.*': [], 'd.1': [] }
  for (const pattern of Object.keys(got)) {
    client.subscribe(pattern, (event) => got[pattern].push(event.data), (error) => over || wrong.push(`${pattern} ended: ${error}`), {
      since: { seq: 0 },
      onGap: (gap) => wrong.push(`${pattern}: a gap, and nothing was discarded: ${JSON.stringify(gap)}`),
    })
  }
  let over = false
  let n = 0
  // Until it is stored: under its name it is stored once.
  const publish = async () => {
    const data = n++
    for (let i = 0; i < 1000; i++) {
      try {
        return await client.publish(`d.${data % 3}`, data, { msgId: `event-${data}` })
      } catch (error) {
        if (error.name === 'RefusedError' && !error.heals) return wrong.push(`publish ${data}: ${error}`)
        await sleep(50)
      }
    }
    wrong.push(`${data} is never stored; states ${states.slice(-9)}`)
  }
  for (let round = 0; round < count; round++) {
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
  const back = states.filter((state) => state === 'connected').length
  if (back < count) wrong.push(`${count} restarts, but connected ${back} times: ${states}`)
  over = true
  client.close()
  return { wrong, acked: n, minted, states: states.length }
}
