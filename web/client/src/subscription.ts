import { pause, refreshDelay, sleep } from './backoff.js'
import type { Backoff } from './backoff.js'
import type { Connection, Message } from './connection.js'
import type { Credential } from './credential.js'
import type { Chain, DurableTopics, SubscribeOptions } from './durable.js'
import { RefusedError, Refusals, retryAfter } from './errors.js'
import { Overlap, overlapLag } from './overlap.js'

/** What a subscriber receives. */
export interface Event<T = unknown> {
  topic: string
  /** The subscription's pattern, if it has wildcards. */
  pattern?: string
  data: T
  /** The verified `sub` of the publisher's token, where the operator has it told. */
  from?: string
  /** Of durable topics: the position in the stream. */
  seq?: number
  /** The life of the stream, with {@link Options.durable}: `since: event` goes on behind an event. */
  epoch?: string
  /** The position of the topic's event before; 0: there is none. */
  prev?: number
  /** When the event was stored. */
  time?: string
}

export type Handler<T = any> = (event: Event<T>) => void

/** Those who share a subscription. */
export interface Subscriber extends SubscribeOptions {
  handler: Handler
  ended: (error: Error) => void
}

/** What a subscription needs of its client. */
export interface Host {
  readonly backoff: Backoff
  readonly Durable: DurableTopics | undefined
  report(error: unknown): void
  forget(subscription: Subscription): void
}

/**
 * The subscription to one pattern: once at the server, however many handlers share it. It subscribes again on each new
 * connection, and with a new token before the old one expires.
 */
export class Subscription {
  readonly handlers = new Set<Subscriber>()
  /** What it knows of a stream. */
  readonly durable: Chain | undefined
  /** Resolves when events are delivered for the first time; rejects when the server refuses for good. */
  readonly ready: Promise<void>

  #resolve!: () => void
  #reject!: (error: Error) => void
  #round = new AbortController() // on one connection
  #connection: Connection | undefined // of this round
  #overlap: Overlap<Connection> | undefined // while it moves to another connection
  #refused = new Refusals()
  #attempt = 0
  #confirmed = 0 // when the server has accepted it last; 0: never
  #noticed = 0 // the exp of the token that is being replaced, or was

  constructor(
    readonly pattern: string,
    readonly host: Host,
    /** Presents the token of a subscribe; undefined where the connection has a credential. */
    private readonly token: Credential | undefined,
    options?: SubscribeOptions,
  ) {
    this.durable = host.Durable && new host.Durable(this, options)
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.ready.catch(() => {})
  }

  /**
   * Subscribes on a connection, again and again until the server has accepted it, or has refused it for good. It returns
   * then, or when another round begins. A subscription that the server has dropped begins with a pause.
   */
  async start(connection: Connection, dropped = false): Promise<void> {
    this.stop()
    if (dropped) this.durable?.lose(connection)
    const round = (this.#round = new AbortController())
    const { signal } = round
    const before = this.#connection
    let sent!: () => void
    const first = new Promise<void>((resolve) => (sent = resolve))
    if (before !== connection) connection.subscribed = connection.subscribed.then(() => first)
    signal.addEventListener('abort', sent)
    if (before?.restarting && before !== connection && !before.over) this.#moveFrom(before)
    this.#connection = connection
    connection.signal.addEventListener('abort', () => round.abort(), { signal })
    if (Date.now() - this.#confirmed >= this.host.backoff.max) this.#attempt = 0 // a new trouble, not the same one
    const subscribe = async (token?: string) => {
      if (signal.aborted) return
      const { since, acked } = this.durable?.ask(connection) ?? {}
      const answer = connection.request({ type: 'subscribe', topic: this.pattern, token, since }, acked)
      sent()
      await answer
    }
    for (let wait = dropped ? 0 : -1; ; ) {
      if (wait >= 0) await sleep(wait + pause(this.#attempt++, this.host.backoff), signal)
      if (signal.aborted || connection.over) return
      try {
        await (this.token ? this.token(subscribe) : subscribe())
        if (signal.aborted) return
        this.#confirmed = Date.now()
        this.#refused.clear()
        this.#resolve()
        return await this.#arrive(connection)
      } catch (error) {
        sent()
        if (signal.aborted) return
        if (this.#final(error)) return this.end(error as Error)
        this.host.report(error)
        wait = retryAfter(error)
      }
    }
  }

  // Whether there is no point in asking again. A caller still waits for a subscription that was never confirmed, and must
  // learn of all that does not heal by itself. Only a token that has expired is asked for once more, as for a publish.
  #final(error: unknown): boolean {
    if (!(error instanceof RefusedError) || error.heals || this.durable?.forgets(error)) return false
    if (!error.code.startsWith('token_')) return true
    const count = this.#refused.add()
    if (this.#confirmed === 0) return error.code !== 'token_expired' || count > 1
    return this.#refused.enough(this.host.backoff.max)
  }

  #moveFrom(old: Connection): void {
    if (this.#overlap?.old !== old) this.#overlap = new Overlap(old, (message) => this.hand(message))
  }

  // Ends the move to a connection that has accepted the subscription: that of the old one is given up.
  async #arrive(connection: Connection): Promise<void> {
    const overlap = this.#overlap
    if (!overlap || overlap.old === connection) return
    // What NATS handed to the old node before it knew of the new subscription may still be on its way there.
    await sleep(overlapLag, overlap.old.signal)
    // Whatever the answer: all that is still wanted comes over the new connection.
    await overlap.old.request({ type: 'unsubscribe', topic: this.pattern }).catch(() => {})
    overlap.end()
    void sleep(overlapLag, connection.signal).then(() => this.#overlap === overlap && (this.#overlap = undefined))
  }

  /** Ends this round. The connection is gone, or another round begins. */
  stop(): void {
    this.#round.abort()
    this.#noticed = 0
  }

  /** Ends the subscription at the wish of its last handler. */
  leave(): void {
    this.stop()
    for (const connection of new Set([this.#connection, this.#overlap?.old])) {
      connection?.request({ type: 'unsubscribe', topic: this.pattern }).catch(() => {})
    }
  }

  /** Ends the subscription for good. */
  end(error: Error): void {
    this.stop()
    this.host.forget(this)
    this.#reject(error)
    for (const { ended } of [...this.handlers]) ended(error)
    this.handlers.clear()
  }

  /** Takes an event that came over a connection. */
  deliver(from: Connection, message: Message): void {
    if (this.durable?.take(from, message)) return
    // The next connection may bring what a node that restarts brings now.
    if (from.restarting && from === this.#connection) this.#moveFrom(from)
    if (this.#overlap) this.#overlap.push(from, message)
    else this.hand(message)
  }

  /** Hands an event to all handlers. */
  hand({ type, ...event }: Message): void {
    this.tell(({ handler }) => handler(event as Event))
  }

  tell(tell: (subscriber: Subscriber) => void): void {
    for (const subscriber of [...this.handlers]) {
      try {
        tell(subscriber)
      } catch (error) {
        this.host.report(error)
      }
    }
  }

  /** The server's notice that the token expires. A provider that gives the same token again is not asked in a loop. */
  expiring(exp: number, connection: Connection): void {
    if (exp <= this.#noticed) return
    this.#noticed = exp
    const { signal } = this.#round
    void sleep(refreshDelay(exp, connection.ahead), signal).then(() => {
      if (signal.aborted) return
      void this.start(connection)
      this.#noticed = exp
    })
  }
}
