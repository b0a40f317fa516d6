import type { Message, Request, Socket } from './connection.js'
import type { Position, Since } from './durable.js'
import { ClosedError } from './errors.js'
import type { Options, SocketClass } from './options.js'
import { refusal } from './ticket.js'

/** What a client needs of this module. */
export type ServerSentEvents = (options: Options, WebSocket: SocketClass | undefined) => SocketClass | undefined

/** How many publishes go in one request, at most. */
const mostLines = 100

/** A subscription at the server. */
interface Topic {
  pattern: string
  token: string | undefined
  /** The subscribe that has no answer yet, its token, and from where on it asked for events. */
  id?: string | undefined
  next?: string | undefined
  /** Of a durable topic: where to go on, as the query has it. */
  since?: string | undefined
  /** The last event that has come, or where it began. */
  seq: number
  /** It has a request of its own, since one for several was refused. */
  alone?: boolean
  /** What brings its events, and what will. */
  stream?: Stream | undefined
  opening?: Stream | undefined
}

/** A request for events. */
interface Stream {
  topics: Set<Topic>
  over: AbortController
}

/** Where the calls over HTTP are, beside the WebSocket's. */
const call = (url: string, name: string) => new URL(name, url.replace('ws', 'http'))

/** Whether the server answers over HTTP. */
const answers = (url: string, signal?: AbortSignal) =>
  fetch(call(url, 'openapi.json'), { method: 'HEAD', cache: 'no-store', signal: signal ?? null }).then(({ ok }) => ok, () => false)

/** What looks like a WebSocket, and is requests over HTTP. The connection sends it envelopes, and gets envelopes. */
class EventsSocket implements Socket {
  protocol = 'notifyd.v1'
  onmessage: Socket['onmessage'] = null
  onclose: Socket['onclose'] = null
  onerror: Socket['onerror'] = null

  #token: string | undefined // the connection's; undefined: each subscribe has its own
  #topics = new Map<string, Topic>()
  #changed = new Set<Topic>() // to be asked for
  #lines: string[] = [] // publishes that have not left
  #busy = false // some have
  #welcomed = false
  #worked = false // the server has begun a stream, or taken publishes
  #over = new AbortController()

  constructor(
    private readonly url: string,
    protocols: string[],
    private readonly timeout: number,
    private readonly ended: (worked: boolean, code: number, reason: string) => void,
  ) {
    this.#token = protocols.find((item) => item.startsWith('bearer.'))?.slice(7)
    void answers(url, this.#over.signal).then((ok) => (ok ? this.#say({ type: 'welcome' }) : this.#end(1006)))
  }

  send(frame: string): void {
    const { type, topic: pattern, token, since, id } = JSON.parse(frame) as Request & { id: string }
    const topic = this.#topics.get(pattern!)
    if (type === 'publish') {
      this.#lines.push(frame)
      return this.#publish()
    } else if (type === 'subscribe') {
      this.#subscribe(pattern!, topic, id, token ?? this.#token, since)
    } else if (type === 'ping') {
      // A stream that has been silent may be dead: another one in its place is the proof.
      const all = [...this.#topics.values()]
      if (all.some(({ opening }) => opening)) return
      this.#open(...all)
      if (all.length === 0) void answers(this.url, this.#over.signal).then((ok) => ok && this.#say({ type: 'pong', id }))
      return
    } else if (type === 'auth') {
      this.#token = token
      for (const topic of this.#topics.values()) topic.next = token
      this.#open(...this.#topics.values())
    } else if (topic) {
      this.#forget(topic)
    }
    if (type !== 'subscribe') this.#say({ type: 'ack', id })
  }

  close(): void {
    this.#over.abort()
  }

  #say(message: Partial<Message>): void {
    if (!this.#over.signal.aborted) this.onmessage?.({ data: JSON.stringify(message) })
  }

  #end(code: number, reason = ''): void {
    if (this.#over.signal.aborted) return
    this.close()
    this.ended(this.#worked, code, reason)
    this.onclose?.({ code, reason })
  }

  #subscribe(pattern: string, topic: Topic | undefined, id: string, token: string | undefined, since: Since | undefined): void {
    if (topic && since) {
      this.#forget(topic)
      topic = undefined
    }
    if (!topic) this.#topics.set(pattern, (topic = { pattern, token: undefined, since: textOf(since), seq: (since as Position | undefined)?.epoch ? (since as Position).seq : 0 }))
    topic.id = id
    topic.next = token
    this.#open(topic)
    const its = topic
    setTimeout(() => its.id === id && this.#refuse(its, 'unavailable', 'no answer in time'), this.timeout)
  }

  // Asks for topics, together with what else changes now. Those that have no position share a request, which is made anew
  // with all of them; what has one goes on from there, in a request of its own.
  #open(...topics: Topic[]): void {
    if (this.#changed.size === 0) setTimeout(() => this.#openAll())
    for (const topic of topics) this.#changed.add(topic)
  }

  #openAll(): void {
    const groups = new Map<string, Topic[]>()
    const changed = [...this.#changed].filter((topic) => this.#topics.get(topic.pattern) === topic)
    this.#changed.clear()
    const keyOf = ({ pattern, next, token, since, alone }: Topic) => `${since || alone ? pattern : ''} ${next ?? token}`
    for (const topic of changed) groups.set(keyOf(topic), [])
    for (const topic of this.#topics.values()) groups.get(keyOf(topic))?.push(topic)
    for (const group of groups.values()) void this.#read(group)
  }

  // Reads a request for events to its end.
  async #read(group: Topic[]): Promise<void> {
    const [{ token, next, since }] = group as [Topic]
    const stream: Stream = { topics: new Set(group), over: new AbortController() }
    for (const topic of group) {
      if (topic.opening) leave(topic, topic.opening)
      topic.opening = stream
    }
    this.#over.signal.addEventListener('abort', () => stream.over.abort(), { signal: stream.over.signal })
    const query = new URLSearchParams(group.map(({ pattern }) => ['topic', pattern]))
    if (since) query.set('since', since)
    try {
      const response = await fetch(call(this.url, `events?${query}`), {
        headers: { Authorization: `Bearer ${next ?? token}` },
        cache: 'no-store',
        signal: stream.over.signal,
      })
      if (!response.ok || !response.body) return this.#refuseAll(stream, refusal(response, await response.json().catch(() => undefined)))
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (let text = ''; ; ) {
        const { value, done } = await reader.read()
        if (done) break
        const blocks = (text + value).split('\n\n')
        text = blocks.pop()!
        for (const block of blocks) this.#take(stream, block)
      }
    } catch {
      // It is over, as if it had ended.
    }
    if (stream.topics.size > 0) this.#end(1006)
  }

  // Takes one event of a stream: an envelope of the server.
  #take(stream: Stream, block: string): void {
    const field = (name: string) => block.split('\n').filter((line) => line.startsWith(name)).map((line) => line.slice(name.length + 1)).join('\n')
    const data = field('data:')
    if (!data) return this.#say({ type: 'pong' }) // a comment: the server is alive
    const message = JSON.parse(data) as Message & { reason: string }
    const { type, seq, id } = message
    if (field('event:') === 'close') {
      if (stream.topics.size > 0) this.#end(+message.code!, message.reason)
    } else if (type === 'welcome') {
      if (!this.#welcomed) this.#say({ ...message, ping_interval: 2 * message.ping_interval! })
      this.#welcomed = this.#worked = true
    }
    const topic = this.#topics.get((type === 'ack' ? id : message.pattern ?? message.topic)!)
    if (type === 'ack' && topic?.opening === stream) return this.#acked(topic, message)
    if (topic?.stream !== stream) return
    if (type === 'event') {
      if (seq) {
        if (seq <= topic.seq) return // the stream before has brought it
        topic.seq = seq
        topic.since = field('id:')
      }
    } else if (type === 'gap') {
      topic.seq = message.first! - 1
      topic.since = `${message.epoch ?? topic.since!.split('.')[0]}.${topic.seq}`
    } else if (this.#token) {
      if (type === 'expiring') this.#say({ type, exp: message.exp! })
      return // the word about the connection's credential is close
    } else if (type !== 'expiring') {
      this.#forget(topic)
    }
    this.#say(message)
  }

  #acked(topic: Topic, { id: _, ...ack }: Message): void {
    const { stream, id } = topic
    const { epoch, seq, complete, first, recovered, exp } = ack
    if (stream) leave(topic, stream)
    topic.stream = topic.opening
    topic.opening = undefined
    topic.token = topic.next ?? topic.token
    topic.id = topic.next = undefined
    const [before] = topic.since?.split('.') ?? []
    const after = topic.seq
    const anew = epoch !== undefined && after > 0 && epoch !== before
    if (anew || seq! < after) topic.seq = 0 // it is another life of the stream
    if (epoch && (!recovered || (!stream && !topic.since))) {
      topic.since = `${epoch}.${seq}`
      topic.seq = seq!
    }
    // What the connection knows of the topic goes on: it gets another token, and hears of what is gone.
    if (id) this.#say({ ...(stream ? { type: 'ack', exp: exp! } : ack), id })
    else this.#say({ type: 'pong' })
    if (stream && complete === false) this.#say({ type: 'gap', topic: topic.pattern, after, first: first!, ...(anew && { epoch }) })
    this.#publish()
  }

  #refuseAll({ topics }: Stream, { code, message }: { code: string; message: string }): void {
    const fresh = [...topics].filter(({ stream }) => !stream)
    for (const topic of topics) {
      topic.opening = undefined
      if (this.#token && code.startsWith('token_')) this.#end(4401, message)
      // Which of them it was is not said.
      else if (topics.size > 1 && !topic.stream && !/^(unavailable|rate_limited)$/.test(code)) {
        topic.alone = true
        this.#open(topic)
      } else if (topic.id) this.#refuse(topic, code, message)
      else if (fresh.length === 0) this.#end(1006, message)
    }
  }

  #refuse(topic: Topic, code: string, message: string): void {
    const { id, stream, pattern } = topic
    if (!stream) this.#forget(topic)
    topic.id = topic.next = undefined
    this.#say({ type: 'error', id: id!, topic: pattern, code, message })
    this.#publish()
  }

  #forget(topic: Topic): void {
    this.#topics.delete(topic.pattern)
    for (const stream of [topic.stream, topic.opening]) if (stream) leave(topic, stream)
    topic.id = topic.stream = topic.opening = undefined
    this.#publish()
  }

  // Publishes what waits, in the order in which it came, when all subscribes before it are answered.
  #publish(): void {
    if (this.#busy || this.#lines.length === 0 || [...this.#topics.values()].some(({ id }) => id)) return
    this.#busy = true
    const lines = this.#lines.splice(0, mostLines)
    const request = { method: 'POST', headers: { 'Content-Type': 'application/x-ndjson' }, body: lines.join('\n') + '\n', signal: this.#over.signal }
    fetch(call(this.url, 'publish'), request)
      .then(async (response) => {
        this.#worked ||= response.ok
        const results = response.ok ? (await response.text()).split('\n') : []
        const { code, message } = response.ok ? { code: '', message: '' } : refusal(response, await response.json().catch(() => undefined))
        lines.forEach((line, i) => {
          const { id, topic } = JSON.parse(line)
          const result = code ? { ok: false, code, message } : JSON.parse(results[i]!)
          this.#say({ ...result, id, topic, type: result.ok ? 'ack' : 'error' })
        })
        this.#busy = false
        this.#publish()
      })
      .catch(() => this.#end(1006))
  }
}

function leave(topic: Topic, { topics, over }: Stream): void {
  topics.delete(topic)
  if (topics.size === 0) over.abort()
}

/** since as the query has it. */
function textOf(since: Since | undefined): string | undefined {
  if (!since) return
  if ('seq' in since) return since.epoch ? `${since.epoch}.${since.seq}` : String(since.seq)
  return 'last' in since ? `last:${since.last}` : since.time
}

/** For {@link Options.sse}. */
export const sse: ServerSentEvents = ({ transport = 'auto', onTransport, timeout = 10_000 }, WebSocket) => {
  if (transport === 'websocket') return WebSocket
  let http = transport === 'sse' || !WebSocket
  let blocked = 0 // WebSockets in a row
  const change = (to: boolean, code: number, reason: string) => {
    http = to
    blocked = 0
    onTransport?.(to ? 'sse' : 'websocket', new ClosedError(code, reason))
  }
  function Transport(url: string, protocols: string[]) {
    let opened = false
    if (http) {
      return new EventsSocket(url, protocols, timeout, (worked, code, reason) => worked || !WebSocket || transport === 'sse' || change(false, code, reason))
    }
    const socket = new WebSocket!(url, protocols) as Socket & EventTarget
    socket.addEventListener('message', () => (opened = true), { once: true })
    socket.addEventListener('close', async ({ code, reason }: any) => {
      // Where the server answers otherwise, something on the way does not let a WebSocket pass. Or it has come back just now.
      blocked = !opened && code !== 1000 && (await answers(url)) ? blocked + 1 : 0
      if (blocked > 1 && !http) change(true, code, reason)
    })
    return socket
  }
  return Object.defineProperty(Transport, 'http', { get: () => http }) as unknown as SocketClass
}
