import { ClosedError, RefusedError, UnansweredError } from './errors.js'

/** What a client sends; docs/protocol.md, section 3. */
export interface Request {
  type: 'publish' | 'subscribe' | 'unsubscribe' | 'auth' | 'ping'
  topic?: string
  token?: string
  data?: unknown
  msg_id?: string
}

/** What the server sends; docs/protocol.md, section 4. */
export interface Message {
  type: string
  id?: string
  topic?: string
  pattern?: string
  data?: unknown
  exp?: number
  code?: string
  message?: string
  ping_interval?: number
}

/** The part of the WebSocket interface that is used; that of browsers, Node, Deno, Bun and npm `ws` all have it. */
export interface Socket {
  readonly protocol: string
  send(data: string): void
  close(code?: number): void
  onmessage: ((event: { data: any }) => void) | null
  onclose: ((event: { code: number; reason: string }) => void) | null
  onerror: ((event: any) => void) | null
}

interface Call {
  resolve(answer: Message): void
  reject(error: Error): void
  timer: ReturnType<typeof setTimeout>
}

/** One connection, from its handshake to its end. */
export class Connection {
  /** Resolves with the cause when the connection is over. It never rejects. */
  readonly ended: Promise<Error>
  /** Resolves when the server has said welcome; rejects when the connection ends before. */
  readonly ready: Promise<void>

  #socket: Socket
  #calls = new Map<string, Call>()
  #lastID = 0
  #end!: (cause: Error) => void
  #welcome!: () => void
  #cause: Error | undefined
  #heard = true
  #silent = 0
  #watch: ReturnType<typeof setInterval> | undefined

  constructor(
    socket: Socket,
    private readonly timeout: number,
    private readonly notify: (message: Message) => void,
  ) {
    this.#socket = socket
    this.ended = new Promise((resolve) => (this.#end = resolve))
    this.ready = new Promise((resolve, reject) => {
      this.#welcome = resolve
      void this.ended.then(reject)
    })
    this.ready.catch(() => {})
    const slow = setTimeout(() => this.fail(new UnansweredError('no welcome from the server in time')), timeout)
    void this.ended.then(() => clearTimeout(slow))
    this.ready.then(() => clearTimeout(slow), () => {})
    socket.onmessage = ({ data }) => this.#receive(data)
    socket.onclose = ({ code, reason }) => this.#over(new ClosedError(code, reason))
    socket.onerror = () => {} // a close event follows
  }

  /** Sends a request and waits for its answer; rejects with a RefusedError, or an UnansweredError. */
  request(request: Request): Promise<Message> {
    if (this.#cause) return Promise.reject(new UnansweredError('the connection is over', { cause: this.#cause }))
    const id = (++this.#lastID).toString(36)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#calls.delete(id)
        reject(new UnansweredError('the server did not answer in time'))
      }, this.timeout)
      this.#calls.set(id, { resolve, reject, timer })
      this.#socket.send(JSON.stringify({ ...request, id }))
    })
  }

  /** Whether it has ended. */
  get over(): boolean {
    return this.#cause !== undefined
  }

  /** Asks for a sign of life; without one in time the connection is over. */
  probe(timeout: number): void {
    this.#heard = false
    this.request({ type: 'ping' }).catch(() => {})
    const timer = setTimeout(() => this.#heard || this.fail(new UnansweredError('the server is silent')), timeout)
    void this.ended.then(() => clearTimeout(timer))
  }

  /** Ends the connection for a cause of ours. */
  fail(cause: Error): void {
    this.#over(cause)
    this.#socket.close()
  }

  /** Closes the connection with 1000. */
  close(): void {
    this.#over(new ClosedError(1000, ''))
    this.#socket.close(1000)
  }

  #over(cause: Error): void {
    if (this.#cause) return
    this.#cause = cause
    clearInterval(this.#watch)
    this.#end(cause)
    for (const call of this.#calls.values()) {
      clearTimeout(call.timer)
      call.reject(new UnansweredError('the connection was lost before the server answered', { cause }))
    }
    this.#calls.clear()
  }

  #receive(data: unknown): void {
    if (this.#cause) return
    this.#heard = true
    let message: Message
    try {
      message = JSON.parse(data as string)
    } catch {
      return this.fail(new Error('not a notifyd server: a message is not JSON'))
    }
    const call = message.id === undefined ? undefined : this.#calls.get(message.id)
    if (call) {
      this.#calls.delete(message.id!)
      clearTimeout(call.timer)
      if (message.type === 'error') call.reject(refusal(message))
      else call.resolve(message)
    } else if (message.type === 'welcome') {
      this.#keepWatch((message.ping_interval ?? 0) * 1000)
      this.#welcome()
    } else {
      this.notify(message)
    }
  }

  // A page is not told of the server's pings, so it sends its own when it has heard nothing for an interval. After two
  // silent intervals the server, or the way to it, is gone.
  #keepWatch(interval: number): void {
    if (interval <= 0) return
    this.#watch = setInterval(() => {
      if (this.#heard) {
        this.#heard = false
        this.#silent = 0
        return
      }
      if (++this.#silent === 2) return this.fail(new UnansweredError('the server is silent'))
      this.request({ type: 'ping' }).catch(() => {})
    }, interval)
    ;(this.#watch as { unref?: () => void }).unref?.() // the socket keeps Node running, not the watch
  }
}

/** The error that an error envelope stands for. */
export function refusal(message: Message): RefusedError {
  return new RefusedError(message.code ?? 'unknown', message.message ?? '', message.topic)
}
