import type { Message } from './connection.js'

/** How far one node may be behind another, in milliseconds. Two equal events that two connections bring within it are one. */
export const overlapLag = 500

/** How many events the new connection may bring before the old one has ended its subscription. */
const mostHeld = 1000

interface Arrival {
  key: string
  at: number
  message: Message
}

/**
 * The time in which two connections, or two requests for Server-Sent Events, bring the events of one subscription: that of a
 * node which restarts or of a token that ends, and the one that takes its place. What the new one brings is held back until the old one brings no more, and goes on then without what
 * the old one has brought. So each event is delivered once, in order. Events have no names, so their topics and data are
 * compared.
 */
export class Overlap<From extends object> {
  #brought: Arrival[] = [] // over the old connection and not yet over the new one; in order of time
  #held: Arrival[] = []
  #next: From | undefined // that has brought what is held
  #over = false

  constructor(
    readonly old: From,
    private readonly deliver: (message: Message) => void,
  ) {}

  push(from: From, message: Message): void {
    const arrival = { key: `${message.topic} ${JSON.stringify(message.data)}`, at: Date.now(), message }
    if (from === this.old) {
      if (this.#over) return
      const { at } = this.#held[0] ?? arrival
      while (at - this.#brought[0]?.at! > overlapLag) this.#brought.shift()
      this.#brought.push(arrival)
      return this.deliver(message)
    }
    if (this.#over) return this.#pushNew(arrival)
    if (this.#next !== from) this.#held = [] // of a connection that came to nothing
    this.#next = from
    if (this.#held.push(arrival) >= mostHeld) this.end()
  }

  /** Lets the events of the new connection go; the old one brings no more. */
  end(): void {
    this.#over = true
    this.#held.splice(0).forEach((arrival) => this.#pushNew(arrival))
  }

  #pushNew({ key, at, message }: Arrival): void {
    const twin = this.#brought.findIndex((b) => b.key === key && Math.abs(at - b.at) <= overlapLag)
    if (twin < 0) this.deliver(message)
    else this.#brought.splice(twin, 1)
  }
}
