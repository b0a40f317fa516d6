import { Bell } from './bell.js'
import { ClosedError } from './errors.js'

/** Events that wait for a `for await` loop, at most bound of them: then the oldest is dropped. */
export class EventQueue<T> implements AsyncIterableIterator<T, void, void> {
  #events: T[] = []
  #ended = false
  #error: Error | undefined
  #change = new Bell()

  constructor(
    private readonly bound: number,
    private readonly dropped: () => void,
    private readonly leave: () => void,
  ) {}

  push(event: T): void {
    if (this.#events.push(event) > this.bound) {
      this.#events.shift()
      this.dropped()
    }
    this.#change.ring()
  }

  /** No more events come, since the subscription has ended. What waits can still be taken. */
  end(error: Error): void {
    this.#ended = true
    if (!(error instanceof ClosedError && error.code === 1000)) this.#error = error
    this.#change.ring()
  }

  async next(): Promise<IteratorResult<T, void>> {
    while (this.#events.length === 0 && !this.#ended) await this.#change.next
    if (this.#events.length > 0) return { value: this.#events.shift()!, done: false }
    if (this.#error) throw this.#error
    return { value: undefined, done: true }
  }

  async return(): Promise<IteratorResult<T, void>> {
    this.leave()
    this.#events = []
    this.#error = undefined
    this.#ended = true
    this.#change.ring()
    return { value: undefined, done: true }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
