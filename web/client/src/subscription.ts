import { pause, sleep } from './backoff.js'
import type { Backoff } from './backoff.js'
import type { Connection, Message } from './connection.js'
import { RefusedError } from './errors.js'

/** What a subscriber receives. */
export interface Event<T = unknown> {
  topic: string
  /** The subscription's pattern, if it has wildcards. */
  pattern?: string
  data: T
}

export type Handler<T = any> = (event: Event<T>) => void

/** How often a refused token is asked for again before a subscription gives up. */
const tokenAttempts = 3

/** What a subscription needs of its client. */
export interface Host {
  readonly backoff: Backoff
  /** The token of a subscribe, or undefined where the connection has a credential. */
  subscribeToken(pattern: string): Promise<string | undefined>
  report(error: unknown): void
  forget(subscription: Subscription): void
}

/**
 * The subscription to one pattern: once at the server, however many handlers share it. It subscribes again on each new
 * connection, and with a new token before the old one expires.
 */
export class Subscription {
  readonly handlers = new Set<{ handler: Handler; ended: (error: Error) => void }>()
  /** Resolves when events are delivered for the first time; rejects when the server refuses for good. */
  readonly ready: Promise<void>

  #resolve!: () => void
  #reject!: (error: Error) => void
  #stop = new AbortController() // this round: a connection, or the wait for a refresh
  #refresh: ReturnType<typeof setTimeout> | undefined
  #refreshed = 0 // the exp of the token that was replaced last

  constructor(
    readonly pattern: string,
    private readonly host: Host,
  ) {
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.ready.catch(() => {})
  }

  /** Subscribes on a connection, again and again until the server has accepted it, or has refused it for good. */
  async start(connection: Connection): Promise<void> {
    this.stop()
    const { signal } = (this.#stop = new AbortController())
    void connection.ended.then(() => this.#stop.signal === signal && this.stop())
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        const token = await this.host.subscribeToken(this.pattern)
        if (signal.aborted) return
        await connection.request({ type: 'subscribe', topic: this.pattern, ...(token === undefined ? {} : { token }) })
        return this.#resolve()
      } catch (error) {
        if (signal.aborted) return
        const again = !(error instanceof RefusedError) || error.heals || (error.expired && attempt + 1 < tokenAttempts)
        if (!again) return this.end(error as Error)
        this.host.report(error)
      }
      await sleep(pause(attempt, this.host.backoff), signal)
    }
  }

  /** Ends this round. The connection is gone, or another round begins. */
  stop(): void {
    this.#stop.abort()
    clearTimeout(this.#refresh)
  }

  /** Ends the subscription for good. */
  end(error: Error): void {
    this.stop()
    this.host.forget(this)
    this.#reject(error)
    for (const { ended } of [...this.handlers]) ended(error)
    this.handlers.clear()
  }

  deliver(message: Message): void {
    const event = { topic: message.topic!, data: message.data } as Event
    if (message.pattern !== undefined) event.pattern = message.pattern
    for (const { handler } of [...this.handlers]) {
      try {
        handler(event)
      } catch (error) {
        this.host.report(error)
      }
    }
  }

  /**
   * The server's notice that the token expires. The refresh is spread over the second quarter of the time that is left,
   * since the tokens of many clients may expire together; a source that gives the same token again is not asked in a loop.
   */
  expiring(exp: number, connection: Connection): void {
    if (exp <= this.#refreshed) return
    this.#refreshed = exp
    clearTimeout(this.#refresh)
    this.#refresh = setTimeout(() => void this.start(connection), refreshDelay(exp))
  }
}

/** When to refresh a token that expires at exp (Unix seconds), in milliseconds from now. */
export function refreshDelay(exp: number): number {
  const quarter = Math.max(0, (exp * 1000 - Date.now()) / 4)
  return quarter + Math.random() * quarter
}
