import { sleep } from './backoff.js'
import type { Since } from './durable.js'
import { ClosedError, RefusedError, UnansweredError } from './errors.js'
import { overlapLag } from './overlap.js'

/** What a client sends; docs/protocol.md, section 3. */
export interface Request {
  type: 'publish' | 'subscribe' | 'unsubscribe' | 'auth' | 'ping'
  topic?: string
  token?: string | undefined
  msg_id?: string | undefined
  ttl?: number | undefined
  since?: Since | undefined
  /** JSON text: what is sent is what the token was made for, also if the value has changed since. */
  data?: string
}

/** What the server sends; docs/protocol.md, section 4. */
export interface Message {
  type: string
  id?: string | undefined
  topic?: string
  pattern?: string
  data?: unknown
  exp?: number
  code?: string
  message?: string
  /** Of an error that came over HTTP: how long to wait, in milliseconds. */
  retryAfter?: number | undefined
  node?: string
  ping_interval?: number
  max_message_bytes?: number
  within?: number
  seq?: number
  prev?: number
  time?: string
  from?: string
  duplicate?: boolean
  epoch?: string
  recovered?: number
  complete?: boolean
  first?: number
  after?: number
}

/** The part of the WebSocket interface that is used; that of browsers, Node, Deno, Bun and npm `ws` all have it. */
export interface Socket {
  readonly protocol: string
  send(data: string): void
  close(code?: number): void
  onmessage: ((event: { data: any }) => void) | null
  onclose: ((event: { code: number; reason: string; error?: ClosedError }) => void) | null
  onerror: ((event: any) => void) | null
}

interface Call {
  answer: Promise<Message>
  resolve(answer: Message): void
  reject(error: Error): void
  timer: ReturnType<typeof setTimeout>
}

/** One connection, from its handshake to its end. */
export class Connection {
  /** Resolves with the cause when the connection is over. It never rejects. */
  readonly ended: Promise<Error>
  /** Fires when the connection is over; its reason is the cause. */
  readonly signal: AbortSignal
  /** Resolves when the server has said welcome; rejects when the connection ends before. */
  readonly ready: Promise<void>
  /** Resolves, when the node has said that it restarts, with the seconds for which it goes on. */
  readonly restart: Promise<number>
  /** Whether it has said so. */
  restarting = false
  /** Whether publishes go elsewhere, since it is given up or over. */
  leaving = false
  /** The exp of its credential that is being replaced, or was. */
  replacing = 0
  /** Whether the server has accepted a publish or a subscribe. */
  accepted = false
  /** The node at the other end, when it has said welcome. */
  node: string | undefined
  /** By how many milliseconds the server's clock is ahead. */
  ahead = 0
  /** Resolves when all subscriptions that began on it before have sent their subscribe, or given up. */
  subscribed: Promise<void> = Promise.resolve()

  #socket: Socket
  #calls = new Map<string, Call>()
  #lastID = 0
  #most = Infinity // bytes that the server takes in a message
  #over = new AbortController()
  #welcome!: () => void
  #leave!: (within: number) => void
  #heard = 0 // when something came last
  #watch: ReturnType<typeof setInterval> | undefined

  constructor(
    socket: Socket,
    private readonly timeout: number,
    private readonly notify: (message: Message) => void,
  ) {
    this.#socket = socket
    this.signal = this.#over.signal
    this.restart = new Promise((resolve) => (this.#leave = resolve))
    this.ended = new Promise((resolve) => this.signal.addEventListener('abort', () => resolve(this.signal.reason)))
    this.ready = new Promise((resolve, reject) => {
      this.#welcome = resolve
      void this.ended.then(reject)
    })
    void sleep(timeout, this.signal).then(() => this.node ?? this.close(new UnansweredError('no answer in time')))
    socket.onmessage = ({ data }) => this.#receive(data)
    socket.onclose = ({ code, reason, error = new ClosedError(code, reason) }) => this.#finish(error)
    socket.onerror = () => {} // a close event follows
  }

  /**
   * Sends a request and waits for its answer; rejects with a RefusedError, or an UnansweredError. acked is called with an
   * ack before the next message is read.
   */
  async request({ data, ...request }: Request, acked?: (ack: Message) => void): Promise<Message> {
    if (this.over) throw lost(this.signal.reason)
    const id = String(++this.#lastID)
    let frame = JSON.stringify({ ...request, id })
    if (data) frame = `${frame.slice(0, -1)},"data":${data}}`
    // The server would close the connection (1009).
    if (new TextEncoder().encode(frame).length > this.#most) throw new RefusedError('too_large', `over ${this.#most} bytes`, request.topic)
    let call!: Pick<Call, 'resolve' | 'reject'>
    const answer = new Promise<Message>((resolve, reject) => {
      call = {
        resolve: (ack) => {
          this.accepted ||= !!request.topic
          acked?.(ack)
          resolve(ack)
        },
        reject,
      }
    })
    const timer = setTimeout(() => {
      this.#calls.delete(id)
      call.reject(new UnansweredError('no answer in time'))
    }, this.timeout)
    this.#calls.set(id, { ...call, answer, timer })
    this.#socket.send(frame)
    return answer
  }

  /**
   * Takes no more publishes; resolves a moment after the requests that were sent are answered, or never will be: a node
   * acknowledges what it has handed to NATS, and that may still be on its way there.
   */
  async leave(): Promise<void> {
    this.leaving = true
    await Promise.allSettled([...this.#calls.values()].map(({ answer }) => answer))
    await sleep(overlapLag, this.signal)
  }

  /** Whether it has ended. */
  get over(): boolean {
    return this.signal.aborted
  }

  /** Asks for a sign of life; without one in time the connection is over. */
  probe(timeout: number): void {
    this.#heard = 0
    this.request({ type: 'ping' }).catch(() => {})
    void sleep(timeout, this.signal).then(() => this.#heard > 0 || this.close(new UnansweredError('no answer in time')))
  }

  /** Closes the connection for a cause of ours. */
  close(cause: Error = new ClosedError(1000, '')): void {
    this.#finish(cause)
    this.#socket.close(1000)
  }

  #finish(cause: Error): void {
    if (this.over) return
    clearInterval(this.#watch)
    this.leaving = true
    this.#over.abort(cause)
    for (const call of this.#calls.values()) {
      clearTimeout(call.timer)
      call.reject(lost(cause))
    }
    this.#calls.clear()
  }

  #receive(data: unknown): void {
    if (this.over) return
    this.#heard = Date.now()
    let message: Message
    try {
      message = JSON.parse(data as string)
    } catch {
      return this.close(new Error('not notifyd'))
    }
    const call = this.#calls.get(message.id!)
    if (call) {
      this.#calls.delete(message.id!)
      clearTimeout(call.timer)
      if (message.type === 'error') call.reject(refusal(message))
      else call.resolve(message)
    } else if (message.type === 'welcome') {
      this.node = message.node ?? ''
      this.ahead = Date.parse(message.time!) - Date.now() || 0
      this.#most = message.max_message_bytes ?? Infinity
      if (message.ping_interval) this.#keepWatch(message.ping_interval * 1000)
      this.#welcome()
    } else if (message.type === 'restart') {
      this.restarting = true
      this.#leave(message.within!)
    } else {
      this.notify(message)
    }
  }

  // A page is not told of the server's pings, so it sends its own when it has heard nothing for an interval. After another
  // one the server, or the way to it, is gone.
  #keepWatch(interval: number): void {
    this.#watch = setInterval(() => Date.now() - this.#heard >= interval && this.probe(interval), interval)
  }
}

/** The error that an error envelope stands for. */
export function refusal(message: Message): RefusedError {
  return new RefusedError(message.code!, message.message!, message.topic, message.retryAfter)
}

function lost(cause: Error): UnansweredError {
  return new UnansweredError('connection lost', { cause })
}
