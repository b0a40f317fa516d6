import { Bell } from './bell.js'
import type { ClosedError } from './errors.js'

/** Events that wait for a `for await` loop. Where there are more than bound, full says whether they stay; else the oldest is dropped. */
export class EventQueue<T> implements AsyncIterableIterator<T, void, void> {
  #events: T[] = []
  #ended = false
  #error: Error | undefined
  #change = new Bell()

  constructor(
    private readonly bound: number,
    private readonly full: (event: T) => true | void,
    private readonly leave: () => void,
  ) {}

  push(event: T): void {
    if (this.#events.push(event) > this.bound && !this.full(event)) this.#events.shift()
    this.#change.ring()
  }

  /** No more events come, since the subscription has ended. What waits can still be taken. */
  end(error?: Error): void {
    this.#ended = true
    if ((error as ClosedError | undefined)?.code !== 1000) this.#error = error
    this.#change.ring()
  }

  async next(): Promise<IteratorResult<T, void>> {
    while (!this.#events[0] && !this.#ended) await this.#change.next
    if (this.#events[0]) return { value: this.#events.shift()!, done: false }
    if (this.#error) throw this.#error
    return { value: undefined, done: true }
  }

  return(): Promise<IteratorResult<T, void>> {
    this.leave()
    this.#events = []
    this.end()
    return this.next()
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
