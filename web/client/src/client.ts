import { pause, sleep } from './backoff.js'
import type { Backoff } from './backoff.js'
import { Connection, refusal } from './connection.js'
import type { Message, Socket } from './connection.js'
import { ClosedError, RefusedError } from './errors.js'
import type { Options, State, TokenRequest } from './options.js'
import { Subscription, refreshDelay } from './subscription.js'
import type { Event, Handler, Host } from './subscription.js'

const subprotocol = 'notifyd.v1'

/** A connection that lived for so long was a good one: the next attempt begins with the shortest pause. Milliseconds. */
const goodLife = 5000

/** How often in a row a credential may be refused before the client gives up: the provider is asked anew each time. */
const credentialAttempts = 3

/** How long a page that comes back into view waits for a sign of life, in milliseconds. */
const probeTimeout = 5000

/** The end of one subscriber's interest, and its beginning. */
export interface Subscribed {
  /** Resolves when events are delivered; rejects when the server refuses the subscription for good. */
  readonly ready: Promise<void>
  unsubscribe(): void
}

/**
 * A client of one notifyd server. It connects when it is made, connects again when the connection is lost, and brings
 * its subscriptions along.
 */
export class Client {
  #url: string
  #Socket: new (url: string, protocols: string[]) => Socket
  #options: Options
  #backoff: Backoff
  #timeout: number
  #state: State = 'connecting'
  #connection: Connection | undefined
  #live!: Promise<Connection>
  #setLive!: (connection: Connection) => void
  #failLive!: (error: Error) => void
  #subscriptions = new Map<string, Subscription>()
  #publishing: Promise<unknown> = Promise.resolve()
  #closing = new AbortController()
  #wake = new AbortController()
  #refresh: ReturnType<typeof setTimeout> | undefined
  #host: Host

  /** @param url such as `wss://push.example.com/v1/ws` */
  constructor(url: string, options: Options) {
    this.#url = new URL(url).href
    this.#options = options
    const Socket = options.WebSocket ?? globalThis.WebSocket
    if (!Socket) throw new TypeError('there is no WebSocket here: pass Options.WebSocket')
    this.#Socket = Socket as new (url: string, protocols: string[]) => Socket
    this.#backoff = { min: 250, max: 30_000, ...options.backoff }
    this.#timeout = options.timeout ?? 10_000
    this.#host = {
      backoff: this.#backoff,
      subscribeToken: async (topic) => (this.#strategy === 'message' ? this.#token({ action: 'subscribe', topic }) : undefined),
      report: (error) => this.#report(error),
      forget: (subscription) => {
        if (this.#subscriptions.get(subscription.pattern) === subscription) this.#subscriptions.delete(subscription.pattern)
      },
    }
    this.#awaitLive()
    this.#listen()
    void this.#run()
  }

  get state(): State {
    return this.#state
  }

  /**
   * Publishes any JSON value and resolves when the server has taken it. Publishes leave in the order of the calls. While
   * there is no connection it waits for one, until the signal aborts that. It rejects with a {@link RefusedError}, or an {@link UnansweredError}: then
   * the event may or may not have arrived.
   */
  async publish(topic: string, data: unknown, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const text = JSON.stringify(data)
    if (text === undefined) throw new TypeError('data must be a JSON value')
    const ask = () => this.#token({ action: 'publish', topic, data: text })
    const [before, token] = [this.#publishing, ask()]
    const sent = Promise.allSettled([before, token]).then(() => this.#send(topic, token, data, signal))
    this.#publishing = sent.catch(() => {})
    const { answer } = await sent
    try {
      await answer
    } catch (error) {
      if (!(error instanceof RefusedError && error.expired)) throw error
      // It was not published: the provider gave a token that it had kept for too long. Ask once more.
      await (await this.#send(topic, ask(), data, signal)).answer
    }
  }

  // Resolves when the publish has left. The answer is wrapped, since a promise of a promise would wait for it.
  async #send(topic: string, token: Promise<string>, data: unknown, signal?: AbortSignal): Promise<{ answer: Promise<Message> }> {
    const request = { type: 'publish', topic, token: await token, data } as const
    const aborted = new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason), { once: true }))
    let connection: Connection
    do {
      signal?.throwIfAborted()
      connection = await (signal ? Promise.race([this.#live, aborted]) : this.#live)
    } while (connection.over) // it has ended, and the next one is not awaited yet
    const answer = connection.request(request)
    answer.catch(() => {}) // the caller hears of it
    return { answer }
  }

  /**
   * Calls handler with each event of a topic or pattern. `ended` is called if the server refuses the subscription for
   * good. Several subscriptions to one pattern are one at the server.
   */
  subscribe<T = any>(pattern: string, handler: Handler<T>, ended: (error: Error) => void = (e) => this.#report(e)): Subscribed {
    let subscription = this.#subscriptions.get(pattern)
    if (!subscription) {
      subscription = new Subscription(pattern, this.#host)
      this.#subscriptions.set(pattern, subscription)
      if (this.#state === 'closed') subscription.end(new ClosedError(1000, 'the client is closed'))
      else if (this.#connection) void subscription.start(this.#connection)
    }
    const entry = { handler, ended }
    const its = subscription
    its.handlers.add(entry)
    return {
      ready: its.ready,
      unsubscribe: () => {
        if (!its.handlers.delete(entry) || its.handlers.size > 0 || this.#subscriptions.get(pattern) !== its) return
        its.stop()
        this.#subscriptions.delete(pattern)
        this.#connection?.request({ type: 'unsubscribe', topic: pattern }).catch(() => {})
      },
    }
  }

  /**
   * The events of a topic or pattern, for `for await`. Leaving the loop ends the subscription; a refusal for good is thrown
   * into it.
   */
  async *events<T = any>(pattern: string): AsyncGenerator<Event<T>, void, void> {
    const waiting: Event<T>[] = []
    const bound = this.#options.buffer ?? 1000
    let wake = () => {}
    let failed: Error | undefined
    const subscription = this.subscribe<T>(
      pattern,
      (event) => {
        if (waiting.push(event) > bound) {
          waiting.shift()
          this.#report(new Error(`an event of ${pattern} was dropped: its consumer is too slow`))
        }
        wake()
      },
      (error) => {
        failed = error
        wake()
      },
    )
    try {
      while (true) {
        const event = waiting.shift()
        if (event) yield event
        else if (failed) throw failed
        else await new Promise<void>((resolve) => (wake = resolve))
      }
    } finally {
      subscription.unsubscribe()
    }
  }

  /** Ends the client for good. */
  close(): void {
    this.#end(new ClosedError(1000, 'the client is closed'))
    this.#connection?.close()
  }

  get #strategy() {
    return this.#options.strategy ?? 'message'
  }

  // One connection after the other, until one ends for good.
  async #run(): Promise<void> {
    let attempt = 0
    let refused = 0
    while (!this.#closing.signal.aborted) {
      let cause: Error
      let from = Date.now()
      try {
        const connection = await this.#connect()
        refused = 0
        from = Date.now()
        cause = await connection.ended
      } catch (error) {
        cause = error instanceof Error ? error : new Error(String(error))
      }
      this.#lost()
      if (this.#closing.signal.aborted) return
      if (unauthenticated(cause)) refused++
      if (final(cause, refused)) return this.#end(cause)
      if (Date.now() - from >= goodLife) attempt = 0
      // A server that restarts has asked us to go elsewhere, at a time that it chose for us: there is nothing to wait for.
      const now = cause instanceof ClosedError && cause.code === 1012 && attempt === 0
      this.#setState('waiting', cause)
      await this.#wait(now ? 0 : pause(attempt, this.#backoff))
      attempt++
      if (!this.#closing.signal.aborted) this.#setState('connecting')
    }
  }

  async #connect(): Promise<Connection> {
    const protocols = await this.#protocols()
    this.#closing.signal.throwIfAborted()
    const socket = new this.#Socket(this.#url, protocols)
    const connection: Connection = new Connection(socket, this.#timeout, (message) => this.#notice(connection, message))
    const abort = () => connection.close()
    this.#closing.signal.addEventListener('abort', abort)
    void connection.ended.then(() => this.#closing.signal.removeEventListener('abort', abort))
    try {
      await connection.ready
    } catch (error) {
      if (this.#strategy === 'subprotocol' && error instanceof ClosedError && error.code === 1006) await this.#askWhy()
      throw error
    }
    if (this.#strategy === 'first-message') {
      try {
        await connection.request({ type: 'auth', token: await this.#token({ action: 'connect' }) })
      } catch (error) {
        connection.close()
        throw error
      }
    }
    this.#closing.signal.throwIfAborted()
    this.#connection = connection
    this.#setState('connected')
    this.#setLive(connection)
    for (const subscription of this.#subscriptions.values()) void subscription.start(connection)
    return connection
  }

  // The subprotocols to offer; a credential may stand among them.
  async #protocols(): Promise<string[]> {
    switch (this.#strategy) {
      case 'subprotocol':
        return [subprotocol, `bearer.${await this.#token({ action: 'connect' })}`]
      case 'ticket':
        return [subprotocol, `ticket.${await this.#ticket()}`]
      default:
        return [subprotocol]
    }
  }

  // A page sees every refused handshake as 1006. The call for a ticket refuses a token for the same reason, and says it.
  async #askWhy(): Promise<void> {
    await this.#ticket().catch((error) => {
      if (error instanceof RefusedError && !(error.code === 'unknown')) throw error
    })
  }

  async #ticket(): Promise<string> {
    const url = new URL('tickets', this.#url)
    url.protocol = url.protocol.replace('ws', 'http')
    const token = await this.#token({ action: 'connect' })
    const response = await fetch(url, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(this.#timeout),
    })
    const body = await response.json().catch(() => ({}))
    if (!response.ok) {
      const code = body.code ?? (response.status >= 500 || response.status === 429 ? 'unavailable' : response.status === 404 ? 'unknown' : 'token_invalid')
      throw new RefusedError(code, body.message ?? `the server refused a ticket (${response.status})`)
    }
    return body.ticket
  }

  async #token(request: TokenRequest): Promise<string> {
    return this.#options.token(request)
  }

  // What the server sends on its own account.
  #notice(connection: Connection, message: Message): void {
    const key = message.pattern ?? message.topic
    const subscription = key === undefined ? undefined : this.#subscriptions.get(key)
    switch (message.type) {
      case 'event':
        return subscription?.deliver(message)
      case 'expiring':
        if (message.topic === undefined) this.#refreshCredential(connection, message.exp!)
        else subscription?.expiring(message.exp!, connection)
        return
      case 'error':
        if (!subscription) return
        this.#report(refusal(message))
        return void subscription.start(connection) // the next token may do
      case 'expired':
        return void subscription?.start(connection)
    }
  }

  #refreshCredential(connection: Connection, exp: number): void {
    clearTimeout(this.#refresh)
    this.#refresh = setTimeout(async () => {
      try {
        await connection.request({ type: 'auth', token: await this.#token({ action: 'connect' }) })
      } catch (error) {
        this.#report(error)
        // Until the old credential ends, there is time to ask again.
        if (exp * 1000 > Date.now() && !connection.over) this.#refreshCredential(connection, exp)
      }
    }, refreshDelay(exp) + 250)
  }

  #awaitLive(): void {
    this.#live = new Promise((resolve, reject) => {
      this.#setLive = resolve
      this.#failLive = reject
    })
    this.#live.catch(() => {})
  }

  #lost(): void {
    clearTimeout(this.#refresh)
    if (!this.#connection || this.#state === 'closed') return
    this.#connection = undefined
    this.#awaitLive()
  }

  #end(cause: Error): void {
    if (this.#state === 'closed') return
    this.#closing.abort()
    this.#failLive(cause) // for those that wait
    this.#awaitLive()
    this.#failLive(cause) // for those that come
    this.#setState('closed', cause)
    for (const subscription of [...this.#subscriptions.values()]) subscription.end(cause)
  }

  #setState(state: State, error?: Error): void {
    if (this.#state === state) return
    this.#state = state
    this.#options.onState?.(state, error)
  }

  #report(error: unknown): void {
    this.#options.onError?.(error instanceof Error ? error : new Error(String(error)))
  }

  // Waits for the next attempt; a page without a network waits on, for at most the longest pause.
  async #wait(ms: number): Promise<void> {
    const offline = (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine === false
    this.#wake = new AbortController()
    const signal = AbortSignal.any([this.#wake.signal, this.#closing.signal])
    await sleep(offline ? this.#backoff.max : ms, signal)
  }

  // A page whose network is back, or that comes back into view, does not wait: it connects, or finds out whether the
  // connection that it has is alive.
  #listen(): void {
    const page = globalThis as { addEventListener?: Function; document?: Document }
    if (typeof page.addEventListener !== 'function') return
    const back = () => {
      if (page.document?.visibilityState === 'hidden') return
      this.#wake.abort()
      this.#connection?.probe(Math.min(probeTimeout, this.#timeout))
    }
    const { signal } = this.#closing
    page.addEventListener('online', back, { signal })
    page.document?.addEventListener('visibilitychange', back, { signal })
  }
}

/** Whether the connection's credential was not accepted, or has ended. */
function unauthenticated(cause: Error): boolean {
  return cause instanceof ClosedError ? cause.code === 4401 : cause instanceof RefusedError && cause.code.startsWith('token_')
}

/** Whether cause forbids to connect again. A refused credential does so only after the provider was asked several times. */
function final(cause: Error, refused: number): boolean {
  if (cause instanceof RefusedError && cause.heals) return false
  if (unauthenticated(cause)) return refused >= credentialAttempts
  if (cause instanceof ClosedError || cause instanceof RefusedError) return !cause.heals
  return cause.name === 'SecurityError' || cause.name === 'SyntaxError' // of the WebSocket's constructor
}
