import { pause, refreshDelay, sleep } from './backoff.js'
import type { Backoff } from './backoff.js'
import { Bell } from './bell.js'
import { Connection, refusal } from './connection.js'
import type { Message } from './connection.js'
import { credential } from './credential.js'
import type { Credential } from './credential.js'
import type { Position, SubscribeOptions } from './durable.js'
import { ClosedError, RefusedError, Refusals, retryAfter } from './errors.js'
import { EventQueue } from './events.js'
import type { Options, SocketClass, State, TokenRequest } from './options.js'
import { overlapLag } from './overlap.js'
import { Subscription } from './subscription.js'
import type { Event, Handler, Host } from './subscription.js'
import { askTicket } from './ticket.js'

/** Where there is a page, its parts. */
const page = globalThis as {
  addEventListener?: typeof addEventListener
  document?: Document
  navigator?: { onLine?: boolean }
}

const hidden = () => page.document?.hidden

export interface PublishOptions {
  /** Ends the wait for a connection. */
  signal?: AbortSignal
  /** Names the event, in at most 64 bytes: a stream stores an event of that name once within its duplicate window. */
  msgId?: string
  /** How many seconds a stream keeps the event, where it allows that. */
  ttl?: number
}

/** Where a stream has stored an event; the topic is not durable if there is no seq. */
export interface Stored {
  seq?: number
  /** The stream had an event with this msgId, and seq is that one's. */
  duplicate?: boolean
}

/** The end of one subscriber's interest, and its beginning. */
export interface Subscribed {
  /** Resolves when events are delivered; rejects when the server refuses the subscription for good. */
  readonly ready: Promise<void>
  /** Of durable topics: up to where the handlers were given all events. `since` takes it. */
  readonly position: Position | undefined
  unsubscribe(): void
}

/**
 * A client of one notifyd server. It connects when it is made, connects again when the connection is lost, and brings
 * its subscriptions along.
 */
export class Client {
  #url: string
  #Socket: SocketClass
  #options: Options
  #backoff: Backoff
  #timeout: number
  #state: State = 'connecting'
  #connection: Connection | undefined
  #change = new Bell() // rings when there is a connection to publish on, and at the end
  #subscriptions = new Map<string, Subscription>()
  #publishing: Promise<unknown> = Promise.resolve()
  #closing = new AbortController()
  #wake = new AbortController()
  #credential: Credential
  #host: Host

  /** @param url such as `wss://push.example.com/v1/ws` */
  constructor(url: string, options: Options) {
    this.#url = new URL(url).href.replace(/^http/, 'ws')
    this.#options = options
    const { WebSocket = globalThis.WebSocket as SocketClass | undefined, sse } = options
    this.#Socket = (sse ? sse(options, WebSocket) : WebSocket)!
    if (!this.#Socket) throw new TypeError('no WebSocket')
    this.#backoff = { min: 250, max: 30_000, ...options.backoff }
    this.#timeout = options.timeout ?? 10_000
    this.#host = {
      backoff: this.#backoff,
      Durable: options.durable,
      report: (error) => this.#report(error),
      forget: (subscription) => {
        if (this.#subscriptions.get(subscription.pattern) === subscription) this.#subscriptions.delete(subscription.pattern)
      },
    }
    this.#credential = credential(() => this.#token({ action: 'connect' }))
    this.#listen()
    void this.#run()
  }

  get state(): State {
    return this.#state
  }

  /**
   * Publishes any JSON value and resolves when the server has taken it. Publishes leave in the order of the calls. While
   * there is no connection it waits for one, until the signal aborts that. It rejects with a {@link RefusedError}, or an
   * {@link UnansweredError}: then the event may or may not have arrived. Of a durable topic it gives where the stream has
   * stored the event.
   */
  async publish(topic: string, data: unknown, options: PublishOptions = {}): Promise<Stored> {
    const text = JSON.stringify(data)
    if (text === undefined) throw new TypeError('not JSON')
    const ask = () => this.#token({ action: 'publish', topic, data: text })
    const [before, token] = [this.#publishing, ask()]
    const sent = Promise.allSettled([before, token]).then(() => this.#send(topic, token, text, options))
    this.#publishing = sent.catch(() => {})
    const { answer } = await sent
    try {
      return await answer
    } catch (error) {
      if (codeOf(error) !== 'token_expired') throw error
      // It was not published: the provider gave a token that it had kept for too long. Ask once more.
      return (await this.#send(topic, ask(), text, options)).answer
    }
  }

  // Resolves when the publish has left. The answer is wrapped, since a promise of a promise would wait for it.
  async #send(topic: string, token: Promise<string>, data: string, { signal, msgId, ttl }: PublishOptions): Promise<{ answer: Promise<Message> }> {
    const request = { type: 'publish', topic, token: await token, data, msg_id: msgId, ttl } as const
    for (;;) {
      this.#closing.signal.throwIfAborted()
      const connection = this.#connection
      const usable = () => connection && connection === this.#connection && !connection.leaving
      await sleep(usable() ? connection!.subscribed : this.#change.next, signal ?? this.#closing.signal)
      signal?.throwIfAborted()
      if (usable()) return { answer: connection!.request(request) }
    }
  }

  /**
   * Calls handler with each event of a topic or pattern. `ended` is called if the server refuses the subscription for
   * good. Several subscriptions to one pattern are one at the server.
   */
  subscribe<T = any>(pattern: string, handler: Handler<T>, ended: (error: Error) => void = (e) => this.#report(e), options?: SubscribeOptions): Subscribed {
    let subscription = this.#subscriptions.get(pattern)
    if (!subscription) {
      subscription = new Subscription(pattern, this.#host, this.#strategy === 'message' ? credential(() => this.#token({ action: 'subscribe', topic: pattern })) : undefined, options)
      this.#subscriptions.set(pattern, subscription)
      if (this.#closed) subscription.end(this.#closing.signal.reason)
      else if (this.#connection) void subscription.start(this.#connection)
    }
    const entry = { handler, ended, ...options }
    const its = subscription
    its.handlers.add(entry)
    return {
      ready: its.ready,
      get position() {
        return its.durable?.position
      },
      unsubscribe: () => {
        if (!its.handlers.delete(entry) || its.handlers.size > 0 || this.#subscriptions.get(pattern) !== its) return
        this.#subscriptions.delete(pattern)
        its.leave()
      },
    }
  }

  /**
   * The events of a topic or pattern from this call on, for `for await`. Leaving the loop ends the subscription. A refusal
   * for good is thrown into it, and `close()` ends it. At most {@link Options.buffer} events wait for the loop: then the
   * oldest is dropped, and reported. Of durable topics none is dropped: the loop gets those that wait, and then an error;
   * another loop can go on behind the last one (`since: event`).
   */
  events<T = any>(pattern: string, options?: SubscribeOptions): AsyncIterableIterator<Event<T>, void, void> {
    const queue: EventQueue<Event<T>> = new EventQueue(
      this.#options.buffer ?? 1000,
      ({ seq }) => {
        const error = new Error(`${pattern}: slow consumer`)
        if (!seq) return this.#report(error)
        subscription.unsubscribe()
        queue.end(error)
        return true
      },
      () => subscription.unsubscribe(),
    )
    const subscription = this.subscribe<T>(pattern, (event) => queue.push(event), (error) => queue.end(error), options)
    return queue
  }

  /** Ends the client for good. */
  close(): void {
    this.#end(new ClosedError(1000, 'closed'))
  }

  get #strategy() {
    const { strategy = 'message' } = this.#options
    return this.#Socket.http && strategy === 'ticket' ? 'subprotocol' : strategy
  }

  // One connection after the other, until one ends for good.
  async #run(): Promise<void> {
    const refused = new Refusals()
    let attempt = 0
    let next: Connection | undefined // that has taken the place of the one before
    while (!this.#closed) {
      let cause: Error
      try {
        const connection = next ?? (await this.#connect())
        if (!next) void this.#attach(connection)
        next = undefined
        const from = Date.now()
        const moved = connection.restart.then((within) => this.#elsewhere(connection, within))
        const end = await Promise.race([connection.ended, moved])
        if (end instanceof Connection) {
          next = end
          await this.#move(connection, next)
          continue
        }
        cause = end
        // A connection of requests has no node until one was accepted: it may have lasted only since a refusal was held back.
        const held = (connection.node || connection.accepted) && Date.now() - from >= this.#backoff.max
        if (held) attempt = 0 // a new outage, not the same one
        // Not by the handshake alone: a server may accept that and close at once.
        if (held || connection.accepted) refused.clear()
      } catch (error) {
        cause = asError(error)
      }
      this.#connection = undefined
      if (this.#closed) return
      if (cause instanceof RefusedError ? !cause.heals : codeOf(cause) === 4401) refused.add()
      if (final(cause) || refused.enough(this.#backoff.max)) return this.#end(cause)
      // A server that restarts has asked us to go elsewhere, at a time that it chose for us: there is nothing to wait for.
      const now = codeOf(cause) === 1012 && attempt === 0
      this.#setState('waiting', cause)
      if (!now && (await this.#wait(attempt, cause))) attempt = 0
      else attempt++
      this.#setState('connecting')
    }
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted
  }

  // Makes a connection that has a credential, if the strategy asks for one.
  async #connect(): Promise<Connection> {
    switch (this.#strategy) {
      case 'subprotocol':
        return this.#credential((token) => this.#open(`bearer.${token}`).catch((error) => this.#askWhy(token, error)))
      case 'ticket':
        return this.#credential(async (token) => this.#open(`ticket.${await this.#ticket(token)}`))
      case 'first-message':
        const connection = await this.#open()
        await this.#authenticate(connection).catch((error) => {
          connection.close()
          throw error
        })
        return connection
      default:
        return this.#open()
    }
  }

  async #open(...credential: string[]): Promise<Connection> {
    this.#closing.signal.throwIfAborted()
    const socket = new this.#Socket(this.#url, ['notifyd.v1', ...credential])
    const connection: Connection = new Connection(socket, this.#timeout, (message) => this.#notice(connection, message))
    this.#closing.signal.addEventListener('abort', () => connection.close(), { signal: connection.signal })
    await connection.ready
    return connection
  }

  async #authenticate(connection: Connection): Promise<void> {
    await this.#credential((token) => connection.request({ type: 'auth', token }))
  }

  #ticket(token: string): Promise<string> {
    return askTicket(this.#url, token, this.#timeout, this.#closing.signal)
  }

  // A page sees every refused handshake as 1006. The call for a ticket refuses a token for the same reason, and says it.
  async #askWhy(token: string, cause: unknown): Promise<never> {
    if (codeOf(cause) === 1006) {
      await this.#ticket(token).catch((error) => {
        if (error instanceof RefusedError && error.code !== 'unknown') throw error
      })
    }
    throw cause
  }

  // Makes a connection the one to use; resolves when all subscriptions have come to it.
  async #attach(connection: Connection): Promise<void> {
    this.#connection = connection
    this.#setState('connected')
    this.#change.ring()
    await Promise.all([...this.#subscriptions.values()].map((subscription) => subscription.start(connection)))
  }

  // Connects to another node than that of old, which restarts and serves until then (docs/protocol.md, section 4). It
  // gives old's end when that comes first.
  async #elsewhere(old: Connection, within: number): Promise<Connection | Error> {
    // The server tells all its clients at once: they spread themselves, and leave time for the move. Before that, the
    // subscriptions note for a while what comes.
    await sleep(overlapLag + Math.random() * within * 500, old.signal)
    for (let attempt = 0; !old.over; attempt++) {
      let cause: unknown
      try {
        const next = await this.#connect()
        if (next.node !== old.node && !old.over) return next
        next.close() // the node that restarts still accepts
      } catch (error) {
        cause = error
      }
      await sleep(retryAfter(cause) + pause(attempt, this.#backoff), old.signal)
    }
    return old.ended
  }

  // Gives up old when nothing relies on it. Publishes wait until those that went to old are answered, so that their order
  // holds. Subscriptions move by themselves.
  async #move(old: Connection, next: Connection): Promise<void> {
    await old.leave()
    if (this.#closed) return
    void this.#attach(next).then(() => next.over || old.close())
  }

  async #token(request: TokenRequest): Promise<string> {
    const token = await this.#options.token(request)
    if (!token) throw new RefusedError('token_missing', 'none given', request.topic)
    return token
  }

  // What the server sends on its own account.
  #notice(connection: Connection, message: Message): void {
    const { type, topic, exp } = message
    const subscription = this.#subscriptions.get(message.pattern ?? topic!)
    if (type === 'gap') return void subscription?.durable?.take(connection, message)
    if (type === 'event') return subscription?.deliver(connection, message)
    if (connection !== this.#connection) return // it is about to be given up
    if (type === 'expiring') {
      if (topic === undefined) void this.#replaceCredential(connection, exp!)
      else subscription?.expiring(exp!, connection)
    } else if (type === 'expired' || type === 'error') {
      if (message.code) this.#report(refusal(message))
      void subscription?.start(connection, true) // the next token may do
    }
  }

  // Asks until the server takes the new credential, or the connection ends. When the server gives notice of a token that
  // was asked for already, the provider has given the same again, and is left alone.
  async #replaceCredential(connection: Connection, exp: number): Promise<void> {
    if (exp <= connection.replacing) return
    connection.replacing = exp
    let wait = refreshDelay(exp, connection.ahead)
    for (let attempt = 0; ; attempt++) {
      await sleep(wait, connection.signal)
      if (connection !== this.#connection || exp !== connection.replacing) return
      try {
        return await this.#authenticate(connection)
      } catch (error) {
        if (this.#closed) return
        this.#report(error)
        wait = retryAfter(error) + pause(attempt, this.#backoff)
      }
    }
  }

  #end(cause: Error): void {
    if (this.#closed) return
    this.#closing.abort(cause)
    this.#wake.abort()
    this.#setState('closed', cause)
    this.#change.ring()
    for (const subscription of [...this.#subscriptions.values()]) subscription.end(cause)
  }

  #setState(state: State, error?: Error): void {
    if (this.#state === state || this.#state === 'closed') return
    this.#state = state
    try {
      this.#options.onState?.(state, error)
    } catch (error) {
      this.#report(error)
    }
  }

  #report(error: unknown): void {
    this.#options.onError?.(asError(error))
  }

  // Waits for the next attempt: as long as the server asks for, and a random time, so that the clients that it asked do not
  // come together. A page without a network waits for it, and one that is hidden tries seldom, after the first attempt; but
  // for at most the longest pause more. It reports whether it was woken.
  async #wait(attempt: number, cause: Error): Promise<boolean> {
    await sleep(retryAfter(cause), this.#closing.signal)
    const seldom = page.navigator?.onLine === false || (attempt > 0 && hidden())
    if (!this.#closed) this.#wake = new AbortController()
    await sleep(pause(attempt, this.#backoff) + (seldom ? this.#backoff.max : 0), this.#wake.signal)
    return this.#wake.signal.aborted
  }

  // A page whose network is back, or that comes back into view, does not wait: it connects, or finds out whether the
  // connection that it has is alive.
  #listen(): void {
    if (!page.addEventListener) return
    const back = () => {
      this.#wake.abort()
      this.#connection?.probe(this.#timeout / 2)
    }
    const { signal } = this.#closing
    page.addEventListener('online', back, { signal })
    page.document?.addEventListener('visibilitychange', () => hidden() || back(), { signal })
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

/** The code of a RefusedError or a ClosedError. */
function codeOf(error: unknown): string | number | undefined {
  return (error as RefusedError | ClosedError | undefined)?.code
}

/** Whether cause forbids to connect again. */
function final(cause: Error): boolean {
  if (cause instanceof ClosedError) return !cause.heals
  return /^(Security|Syntax)Error/.test(cause.name) // of the WebSocket's constructor
}
