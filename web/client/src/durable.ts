import type { Connection, Message } from './connection.js'
import type { RefusedError } from './errors.js'
import type { Event, Subscription } from './subscription.js'

/** A place in a stream of durable topics: its epoch names the life of the stream. */
export interface Position {
  seq: number
  epoch?: string | undefined
}

/**
 * From where on a subscription gets what a stream has kept: after a position, the last events (of a pattern: the last of each
 * topic), from a time on (RFC 3339), or everything (`{ seq: 0 }`).
 */
export type Since = Position | { last: number } | { time: string }

/** Events that a stream had to discard before they could be sent: those between two positions. */
export interface Gap {
  after: number
  /** Not known where a token permits no history any more. */
  first?: number | undefined
  /** Set when the stream was removed and made again: positions of before mean nothing. */
  epoch?: string | undefined
}

/** They need {@link Options.durable}. */
export interface SubscribeOptions {
  /** From where on durable topics are read. It counts for the first subscription to a pattern. */
  since?: Since | Event
  /** Told of events that are gone, in its place among them. Without it, {@link Options.onError} is. */
  onGap?: (gap: Gap) => void
}

/** Of a durable topic an event is missing, or came again: the server broke its promise. Or events are gone, and no onGap is there. */
export class OrderError extends Error {
  override name = 'OrderError'
}

/** What a client needs of this module. */
export type DurableTopics = new (subscription: Subscription, options?: SubscribeOptions) => Chain

/** A connection that brings events of a stream, whole from a position on and ascending. */
interface Source {
  since: number
  /** Up to it events are replayed. */
  whole: number
  last: number
}

/** Of how many topics the last event is remembered. */
const mostTopics = 50_000

/**
 * What a subscription knows of the stream that its topics belong to, if they do. All events ascend in seq, on each connection:
 * so one position is enough to go on from, and two connections that are whole from a position on may be taken together.
 */
export class Chain {
  /** All events up to it were handed on. */
  position: Position | undefined

  #since: Since | undefined
  #epoch: string | undefined
  #sources = new WeakMap<Connection, Source>()
  #seen = 0 // the last event
  #gone = 0 // what is before it may be missing, as the server has said
  #topics = new Map<string, number>() // the last event of each
  #floor = 0 // at or before it is that of a topic which is not there

  constructor(
    private readonly subscription: Subscription,
    { since }: SubscribeOptions = {},
  ) {
    // An event says more than where it is.
    this.#since = since && 'seq' in since ? { seq: since.seq!, epoch: since.epoch } : (since as Since | undefined)
  }

  /** What to ask a connection for, and what to do with its ack. One that brings the events already only gets another token. */
  ask(connection: Connection): { since?: Since | undefined; acked?: (ack: Message) => void } {
    if (this.#sources.has(connection)) return {}
    const since = this.position ?? this.#since
    return { since, acked: (ack) => this.#begin(connection, ack, since as Partial<Position>) }
  }

  /** Gives up a connection, since what it brings from now on is not whole. */
  lose(connection: Connection): void {
    this.#sources.delete(connection)
  }

  /** Whether a refusal is of the position alone: it is given up, and the next subscribe is from then on. */
  forgets({ code }: RefusedError): boolean {
    const { position } = this
    if (code !== 'history_unavailable' || !position) return false
    this.#tellGap({ after: position.seq })
    this.position = this.#since = undefined
    return true
  }

  #begin(connection: Connection, { epoch, seq = 0, recovered, complete, first }: Message, since?: Partial<Position>): void {
    const after = since?.seq ?? 0
    const anew = epoch !== (this.#epoch ?? since?.epoch ?? epoch)
    const from = !since ? seq : anew ? 0 : (since.seq ?? 0)
    if (!since || epoch !== this.#epoch) {
      this.#epoch = epoch
      this.#sources = new WeakMap()
      this.#topics.clear()
      this.#floor = since && since.seq === undefined && !anew ? seq : from
      this.#seen = this.#gone = 0
      this.position = since && since.seq === undefined ? undefined : { seq: from, epoch }
    }
    if (!epoch) return void (this.position = undefined)
    this.#sources.set(connection, { since: from, whole: seq, last: from })
    if (since && !complete) {
      this.#gone = seq + 1
      this.#tellGap({ after, first, ...(anew && { epoch }) })
    }
    if (!recovered) this.position = { seq, epoch }
  }

  /** Takes an event, or the word that events are gone. It reports whether the topics are durable. */
  take(from: Connection, message: Message): boolean {
    const { type, topic, seq, prev, first, after } = message as Required<Message>
    const epoch = this.#epoch!
    if (type === 'event' && (!epoch || !seq)) return false
    const source = this.#sources.get(from)
    if (!source) return true // it is asked for again
    if (type !== 'event') {
      if (message.epoch || first > this.#gone) this.#begin(from, { epoch, ...message, seq: first - 1 }, { seq: message.epoch ? (this.position?.seq ?? 0) : after })
      return true
    }
    const known = this.#topics.get(topic)
    const last = known ?? this.#floor
    const { max } = Math
    const report = (last: number) => this.subscription.host.report(new OrderError(`${topic}: event ${seq} follows ${prev}, but the last that came is ${last}`))
    if (seq <= source.last) {
      report(source.last)
      return true
    }
    source.last = seq
    if (seq <= this.#seen) return true // another connection was faster
    // Only of the first of a topic in a replay prev may be left out. It may be before last, which has been removed since.
    if (prev === undefined ? seq > max(source.whole, this.#gone) || known! > max(source.since, this.#gone) : prev > last && prev >= this.#gone) report(last)
    if (this.#topics.size >= mostTopics) {
      this.#topics.clear()
      this.#floor = this.#seen
    }
    this.#topics.set(topic, (this.#seen = seq))
    this.position = { seq, epoch }
    this.subscription.hand({ ...message, epoch })
    return true
  }

  #tellGap(gap: Gap): void {
    this.subscription.tell(({ onGap }) => {
      if (onGap) onGap(gap)
      else this.subscription.host.report(new OrderError(`${this.subscription.pattern}: the events after ${gap.after} and before ${gap.first} are gone`))
    })
  }
}

/** For {@link Options.durable}. */
export const durable: DurableTopics = Chain
