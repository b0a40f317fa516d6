// What ends a client or a subscription, what does not, and how long it waits.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { ClosedError, RefusedError } from '../dist/index.js'
import { dial, error, limit, of, serve, sleep, until } from './fake.mjs'

const protocol = readFileSync(new URL('../../../docs/protocol.md', import.meta.url), 'utf8')

/** The rows of the table of docs/protocol.md whose head begins so; the first column without its quotes, and the last. */
function table(head) {
  const lines = protocol.slice(protocol.indexOf(`| ${head} |`)).split('\n')
  const rows = lines.slice(2, lines.findIndex((line) => !line.startsWith('|'))).map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()))
  return rows.map((row) => [row[0].replaceAll('`', ''), { yes: true, no: false }[row.at(-1)]])
}

const codes = table('code | when | connection | retry')
const closeCodes = table('close code | meaning | reconnect')

test('the tables were found', () => {
  assert.ok(codes.length >= 16 && closeCodes.length >= 14)
  for (const [code, again] of [...codes, ...closeCodes]) assert.equal(typeof again, 'boolean', code)
})

for (const [code, heals] of codes) {
  test(`${code}: a publish is refused, and the error says that it ${heals ? 'heals' : 'does not heal'}`, limit, async () => {
    const server = await serve({ publish: (envelope, { say }) => say(error(envelope, code)) })
    await assert.rejects(dial(server).publish('a', 1), (refused) => {
      assert.ok(refused instanceof RefusedError)
      assert.equal(refused.code, code)
      assert.equal(refused.heals, heals)
      assert.equal(refused.topic, 'a')
      return true
    })
    assert.equal(server.seen.length, code === 'token_expired' ? 2 : 1)
  })

  test(`${code}: a first subscribe ${heals ? 'is tried again' : 'ends'}`, limit, async () => {
    let n = 0
    const server = await serve({ subscribe: (envelope, { say }) => say(++n < 6 ? error(envelope, code) : { type: 'ack', id: envelope.id }) })
    const client = dial(server)
    const { ready } = client.subscribe('a', () => {}, () => {})
    if (heals) {
      await ready
      assert.equal(n, 6)
      assert.equal(client.errors[0].code, code)
    } else {
      await assert.rejects(ready, { code })
      assert.equal(n, code === 'token_expired' ? 2 : 1)
    }
    assert.equal(client.state, 'connected')
  })

  const token = code.startsWith('token_') && !heals
  test(`${code}: a subscription that was accepted before ${heals || token ? 'is tried again' : 'ends'}`, limit, async () => {
    let n = 0
    const server = await serve({ subscribe: (envelope, { say }) => say(++n > 1 && n < 6 ? error(envelope, code) : { type: 'ack', id: envelope.id }) })
    const client = dial(server, { backoff: { min: 1, max: 5000 } })
    let ended
    await client.subscribe('a', () => {}, (error) => (ended = error)).ready
    server.sockets[0].say({ type: 'expired', topic: 'a' })
    await until(() => (heals || token ? n === 6 : ended))
    assert.equal(ended?.code, heals || token ? undefined : code)
  })
}

for (const [text, reconnects] of [...closeCodes, ['1011', true], ['3000', true], ['4999', false]]) {
  const code = Number(text)
  test(`close code ${code}: the client ${reconnects ? 'comes back' : 'ends'}`, limit, async () => {
    const server = await serve()
    const client = dial(server)
    await client.subscribe('a', () => {}, () => {}).ready
    server.sockets[0].socket.close(code, 'test')
    if (reconnects) {
      await server.await(of('subscribe'), 2)
      await until(() => client.state === 'connected')
      assert.equal(client.states[1][1].code, code)
      return
    }
    await until(() => client.state === 'closed')
    assert.ok(client.states.at(-1)[1] instanceof ClosedError)
    assert.equal(client.states.at(-1)[1].code, code)
    await assert.rejects(client.publish('a', 2), { code })
    await assert.rejects(client.subscribe('b', () => {}, () => {}).ready, { code })
    assert.equal(server.sockets.length, 1)
  })
}

for (const code of ['token_invalid', 'token_expired', 'token_revoked', 'token_malformed']) {
  test(`${code} for a while ends neither the subscription nor the client; for long it ends the subscription`, limit, async () => {
    let bad = true
    let given = 0
    const server = await serve({ subscribe: (envelope, { say }) => say(envelope.token !== 'token 1' && bad ? error(envelope, code) : { type: 'ack', id: envelope.id }) })
    const client = dial(server, { backoff: { min: 20, max: 300 }, token: () => `token ${++given}` })
    let ended
    await client.subscribe('a', () => {}, (error) => (ended = error)).ready
    server.sockets[0].say({ type: 'error', topic: 'a', code, message: '' })
    await server.await(of('subscribe'), 3)
    bad = false
    const asked = given
    await until(() => given > asked)
    await sleep(50)
    assert.equal(ended, undefined)
    bad = true
    const since = Date.now()
    server.sockets[0].say({ type: 'expired', topic: 'a' })
    await until(() => ended)
    assert.equal(ended.code, code)
    assert.ok(Date.now() - since >= 600, 'it gave up too soon')
    assert.equal(client.state, 'connected')
  })
}

const refusedWith = {
  'close code 4401': { connect: ({ socket }) => (socket.close(4401, 'not authenticated'), false) },
  'a refused ticket': { upgrade: () => 401, http: (_, response) => response.writeHead(401).end('{"code":"token_invalid","message":"no"}') },
  'a foreign origin': { upgrade: () => 403, http: (_, response) => response.writeHead(403).end('{"code":"forbidden","message":"no"}') },
}
for (const [what, on] of Object.entries(refusedWith)) {
  for (const strategy of ['subprotocol', 'ticket']) {
    if (strategy === 'ticket' && what === 'close code 4401') on.http = (_, response) => response.writeHead(201).end('{"ticket":"t"}')
    test(`${strategy}: ${what} asks for other tokens for a while, and then ends the client`, limit, async () => {
      const server = await serve(on)
      let given = 0
      const began = Date.now()
      const client = dial(server, { strategy, token: () => `token${++given}`, backoff: { min: 10, max: 150 } })
      await until(() => client.state === 'closed')
      assert.ok(given >= 3, `${given} tokens`)
      assert.ok(Date.now() - began >= 300, 'it gave up too soon')
      if (strategy === 'subprotocol') assert.equal(new Set(server.sockets.map(({ protocols }) => protocols)).size, server.sockets.length)
    })
  }
}

test('a connection that serves is a good one, however often its credential ends', limit, async () => {
  const server = await serve()
  const client = dial(server, { strategy: 'subprotocol' })
  for (let i = 1; i <= 12; i++) {
    await until(() => server.sockets.length === i && client.state === 'connected')
    await client.publish('a', i)
    server.sockets.at(-1).socket.close(4401, 'expired')
  }
  await until(() => server.sockets.length === 13 && client.state === 'connected')
})

for (const status of [401, 429, 503]) {
  for (const [header, least] of [['1', 1000], [() => new Date(Date.now() + 2000).toUTCString(), 900], ['soon', 0], ['-3', 0], [() => new Date(0).toUTCString(), 0]]) {
    test(`a ticket refused with ${status} and Retry-After: ${header}`, limit, async () => {
      const asked = []
      const code = { 401: 'token_not_yet_valid', 429: 'rate_limited', 503: 'unavailable' }[status]
      const server = await serve({
        http: (_, response) => {
          asked.push(Date.now())
          if (asked.length > 1) return response.writeHead(201).end('{"ticket":"t"}')
          response.writeHead(status, { 'Retry-After': typeof header === 'string' ? header : header() }).end(JSON.stringify({ code, message: 'later' }))
        },
      })
      const client = dial(server, { strategy: 'ticket' })
      await until(() => client.state === 'connected')
      assert.equal(client.states[0][1].code, code)
      assert.ok(asked[1] - asked[0] >= least - 20, `${asked[1] - asked[0]} ms`)
    })
  }
}

test('what a proxy answers to the call for a ticket is tried again', limit, async () => {
  const answers = [[502, '<html>'], [200, '<html>'], [200, 'null'], [200, '{}'], [201, '{"ticket":"t"}']]
  const server = await serve({ http: (_, response) => response.writeHead(answers[0][0]).end(answers.shift()[1]) })
  const client = dial(server, { strategy: 'ticket', backoff: { min: 1, max: 1000 } })
  await until(() => client.state === 'connected')
  assert.equal(answers.length, 0)
})

test('close ends the call for a ticket', limit, async () => {
  let ended
  const server = await serve({ http: (request, response) => response.on('close', () => (ended = true)) && request.resume() })
  let asked = 0
  const client = dial(server, { strategy: 'ticket', timeout: 50_000, token: () => `token ${++asked}` })
  await until(() => asked === 1)
  await sleep(50)
  client.close()
  await until(() => ended)
  await sleep(50)
  assert.equal(asked, 1)
  assert.equal(client.states.length, 1)
})

test('an early token is presented again; another is not asked for', limit, async () => {
  let given = 0
  let n = 0
  const early = (envelope, { say }) => say(++n < 4 ? error(envelope, 'token_not_yet_valid') : { type: 'ack', id: envelope.id })
  const server = await serve({ subscribe: early, auth: early })
  await dial(server, { token: () => `token ${++given}` }).subscribe('a', () => {}).ready
  assert.equal(given, 1)
  n = 0
  const client = dial(server, { strategy: 'first-message', token: () => `token ${++given}` })
  await until(() => client.state === 'connected')
  assert.equal(given, 2)
})

test('an early token of the call for a ticket, too', limit, async () => {
  const tokens = []
  const server = await serve({
    http: ({ headers }, response) => {
      tokens.push(headers.authorization)
      if (tokens.length > 3) return response.writeHead(201).end('{"ticket":"t"}')
      response.writeHead(401, { 'Retry-After': '0' }).end('{"code":"token_not_yet_valid","message":"early"}')
    },
  })
  let given = 0
  const client = dial(server, { strategy: 'ticket', token: () => `token${++given}` })
  await until(() => client.state === 'connected')
  assert.deepEqual(tokens, Array(4).fill('Bearer token1'))
})

test('a refresh of the credential that is refused asks the provider again, until the server takes it', limit, async () => {
  let n = 0
  let given = 0
  const server = await serve({
    auth: (envelope, { say }) => say(++n > 1 && n < 5 ? error(envelope, 'token_expired') : { type: 'ack', id: envelope.id }),
  })
  const client = dial(server, { strategy: 'first-message', token: () => `token ${++given}` })
  await until(() => client.state === 'connected')
  for (let i = 0; i < 3; i++) server.sockets[0].say({ type: 'expiring', exp: Math.floor(Date.now() / 1000) })
  await server.await(of('auth'), 5)
  await sleep(100)
  assert.deepEqual(server.seen.map(({ token }) => token), [1, 2, 3, 4, 5].map((i) => `token ${i}`))
  assert.equal(client.state, 'connected')
})

test('a notice about a token that came along to another connection counts there', limit, async () => {
  const exp = Math.floor(Date.now() / 1000) + 1
  const server = await serve({ subscribe: ({ id, topic }, { say }) => (say({ type: 'ack', id }), say({ type: 'expiring', topic, exp })) })
  const client = dial(server)
  await client.subscribe('a', () => {}).ready
  server.sockets[0].socket.terminate()
  await server.await(of('subscribe'), 2)
  await server.await(of('subscribe'), 3) // the refresh
})

test('a subscription that the server drops each time is asked for with growing pauses', limit, async () => {
  let n = 0
  const server = await serve({ subscribe: ({ id, topic }, { say }) => (n++, say({ type: 'ack', id }), say({ type: 'expired', topic })) })
  dial(server, { backoff: { min: 100, max: 60_000 } }).subscribe('a', () => {})
  await until(() => n > 0)
  await sleep(400)
  assert.ok(n < 40, `${n} in 0.4 s`)
})

test('the pause has full jitter, and bounds', async () => {
  const { pause, refreshDelay } = await import('../dist/backoff.js')
  for (const [n, most] of [[0, 250], [3, 2000], [7, 30_000], [1000, 30_000]]) {
    const pauses = Array.from({ length: 2000 }, () => pause(n, { min: 250, max: 30_000 }))
    assert.ok(Math.min(...pauses) < most / 20 && Math.max(...pauses) > most * 0.95 && Math.max(...pauses) <= most, `attempt ${n}`)
  }
  // Whatever is left of the token, and however far the server's clock is ahead.
  for (const left of [40, 2, 0.2]) {
    for (const ahead of [0, 3_600_000, -3_600_000]) {
      const delays = Array.from({ length: 1000 }, () => refreshDelay((Date.now() + ahead) / 1000 + left, ahead))
      assert.ok(Math.min(...delays) > left * 200 && Math.max(...delays) <= left * 500 + 1, `${left} s`)
    }
  }
})
