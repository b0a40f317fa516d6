import { pause, sleep } from './backoff.js'
import type { Backoff } from './backoff.js'
import type { Message, Request, Socket } from './connection.js'
import type { Position, Since } from './durable.js'
import { ClosedError, RefusedError } from './errors.js'
import type { Options, SocketClass } from './options.js'
import { Overlap, overlapLag } from './overlap.js'
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
  /** What brings its events, the oldest first: the last one stays. With a position it is one. */
  sources: Source[]
  /** What will bring them, and has not confirmed that yet. */
  opening?: Stream | undefined
  /** Notes what they bring, for the source that comes next. */
  notes?: Overlap<Stream> | undefined
}

interface Source {
  stream: Stream
  /** Puts together what those before it bring, or have brought, and what it brings. */
  overlap?: Overlap<Stream> | undefined
}

/** A request for events. */
interface Stream {
  topics: Set<Topic>
  over: AbortController
  node?: string | undefined
}

/** Where the calls over HTTP are, beside the WebSocket's. */
const call = (url: string, name: string) => new URL(name, url.replace('ws', 'http'))

/**
 * Whether the server answers over HTTP, and how long it asks to wait if not. A token must be one that it takes: then it
 * complains that no topic was named.
 */
const answers = (url: string, signal?: AbortSignal, token?: string) =>
  fetch(call(url, token ? 'events' : 'openapi.json'), {
    method: 'HEAD',
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    cache: 'no-store',
    signal: signal ?? null,
  }).then(
    (response) => ({ ok: token ? response.status === 400 : response.ok, retryAfter: refusal(response).retryAfter }),
    () => ({ ok: false, retryAfter: 0 }),
  )

/** The token of a connection, among the items of its subprotocol. */
const tokenOf = (protocols: string[]) => protocols.find((item) => item.startsWith('bearer.'))?.slice(7)

/** What looks like a WebSocket, and is requests over HTTP. The connection sends it envelopes, and gets envelopes. */
class EventsSocket implements Socket {
  protocol = 'notifyd.v1'
  onmessage: Socket['onmessage'] = null
  onclose: Socket['onclose'] = null
  onerror: Socket['onerror'] = null

  #token: string | undefined // the connection's; undefined: each subscribe has its own
  #auth: { id: string; token: string } | undefined // that is to replace it
  #topics = new Map<string, Topic>()
  #changed = new Set<Topic>() // to be asked for
  #leaving = new Set<string>() // nodes that restart
  #lines: string[] = [] // publishes that have not left
  #busy = false // some have
  #welcomed = false
  #worked = false // the server has begun a stream, or taken publishes
  #over = new AbortController()

  constructor(
    private readonly url: string,
    protocols: string[],
    private readonly timeout: number,
    private readonly backoff: Backoff,
    private readonly ended: (worked: boolean, code: number, reason: string) => void,
  ) {
    this.#token = tokenOf(protocols)
    void answers(url, this.#over.signal).then(({ ok, retryAfter }) => (ok ? this.#say({ type: 'welcome' }) : this.#end(1006, '', retryAfter)))
  }

  send(frame: string): void {
    const { type, topic: pattern, token, since, id } = JSON.parse(frame) as Request & { id: string }
    const topic = this.#topics.get(pattern!)
    if (type === 'publish') {
      this.#lines.push(frame)
      this.#proceed()
    } else if (type === 'subscribe') {
      this.#subscribe(pattern!, topic, id, token ?? this.#auth?.token ?? this.#token, since)
    } else if (type === 'ping') {
      // A stream that has been silent may be dead: another one in its place is the proof.
      const all = [...this.#topics.values()]
      if (all.some(({ opening }) => opening)) return
      this.#open(...all)
      if (all.length === 0) void answers(this.url, this.#over.signal).then(({ ok }) => ok && this.#say({ type: 'pong', id }))
    } else if (type === 'auth') {
      // Answered when all topics have it.
      this.#auth = { id, token: token! }
      for (const topic of this.#topics.values()) topic.next = token
      this.#open(...this.#topics.values())
      this.#proceed()
    } else {
      if (topic) this.#forget(topic)
      this.#say({ type: 'ack', id })
    }
  }

  close(): void {
    this.#over.abort()
  }

  #say(message: Partial<Message>): void {
    if (!this.#over.signal.aborted) this.onmessage?.({ data: JSON.stringify(message) })
  }

  #end(code: number, reason = '', retryAfter?: number): void {
    if (this.#over.signal.aborted) return
    this.close()
    this.ended(this.#worked, code, reason)
    this.onclose?.({ code, reason, error: Object.assign(new ClosedError(code, reason), { retryAfter }) })
  }

  // Does something after so many milliseconds, unless all is over by then.
  #after(time: number, act: () => void): void {
    const { signal } = this.#over
    void sleep(time, signal).then(() => signal.aborted || act())
  }

  #subscribe(pattern: string, topic: Topic | undefined, id: string, token: string | undefined, since: Since | undefined): void {
    if (topic && since) {
      this.#forget(topic)
      topic = undefined
    }
    if (!topic) this.#topics.set(pattern, (topic = { pattern, token: undefined, sources: [], since: queryOf(since), seq: (since as Position | undefined)?.epoch ? (since as Position).seq : 0 }))
    topic.id = id
    topic.next = token
    this.#open(topic)
    const its = topic
    this.#after(this.timeout, () => its.id === id && this.#refuse(its, unanswered))
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
      if (topic.sources.length > 2) this.#retire(topic, topic.sources[1]!) // many changes within a moment
      if (topic.opening) leave(topic, topic.opening)
      topic.opening = stream
      this.#note(topic)
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
    this.#lose(stream, 1006)
  }

  // A stream is over. Topics that another one has confirmed go on there, and those that it was to bring, where they are.
  #lose(stream: Stream, code: number, reason?: string): void {
    for (const topic of stream.topics) {
      const next = topic.sources[topic.sources.findIndex((source) => source.stream === stream) + 1]
      if (next) this.#retire(topic, next)
    }
    const rest = [...stream.topics]
    if (rest.every((topic) => last(topic) && last(topic) !== stream)) this.#refuseAll(stream, unanswered)
    else this.#end(code, reason)
  }

  // Takes one event of a stream: an envelope of the server.
  #take(stream: Stream, block: string): void {
    const field = (name: string) => block.split('\n').filter((line) => line.startsWith(name)).map((line) => line.slice(name.length + 1)).join('\n')
    const data = field('data:')
    if (!data) return this.#say({ type: 'pong' }) // a comment: the server is alive
    const message = JSON.parse(data) as Message & { reason: string }
    const { type, seq, id, node, code } = message
    if (field('event:') === 'close') {
      return this.#lose(stream, +code!, message.reason)
    } else if (type === 'welcome') {
      if (!this.#welcomed) this.#say({ ...message, ping_interval: 2 * message.ping_interval! })
      this.#welcomed = this.#worked = true
      // The node that restarts still accepts: what nobody waits for tries again to reach another one.
      if (this.#leaving.has((stream.node = node!)) && ![...stream.topics].some(asked)) this.#refuseAll(stream, unanswered)
    } else if (type === 'restart') {
      void this.#leaveNode(stream.node!, message.within!)
    }
    const topic = this.#topics.get((type === 'ack' ? id : message.pattern ?? message.topic)!)
    if (type === 'ack' && topic?.opening === stream) return this.#acked(topic, message)
    const source = topic?.sources.find((source) => source.stream === stream)
    if (!topic || !source) return
    if (type === 'event' && !topic.since) {
      if (source.overlap) source.overlap.push(stream, message)
      else this.#pass(topic, source, message)
      return
    }
    if (last(topic) !== stream) return
    if (type === 'event') {
      if (seq! <= topic.seq) return // the stream before has brought it
      topic.seq = seq!
      topic.since = field('id:')
    } else if (type === 'gap') {
      topic.seq = message.first! - 1
      topic.since = `${message.epoch ?? topic.since!.split('.')[0]}.${topic.seq}`
    } else if (this.#token && (type !== 'error' || code!.startsWith('token_'))) {
      if (type === 'expiring') this.#say({ type, exp: message.exp! })
      return // the word about the connection's credential is close
    } else if (type !== 'expiring') {
      this.#forget(topic)
    }
    this.#say(message)
  }

  #acked(topic: Topic, { id: _, ...ack }: Message): void {
    const { sources, opening, id, notes } = topic
    const { epoch, seq, complete, first, recovered, exp } = ack
    const source = { stream: opening!, overlap: notes }
    const stream = last(topic)
    topic.token = topic.next ?? topic.token
    topic.id = topic.next = topic.opening = topic.notes = undefined
    sources.push(source)
    if (topic.since) for (const { stream } of sources.splice(0, sources.length - 1)) leave(topic, stream)
    else this.#after(overlapLag, () => this.#retire(topic, source))
    const [before] = topic.since?.split('.') ?? []
    const after = topic.seq
    const anew = epoch !== undefined && after > 0 && epoch !== before
    // Another life of the stream. Where nothing is missing, this node is only behind the one before.
    if (anew || (complete === false && seq! < after)) topic.seq = 0
    if (epoch && (!recovered || (!stream && !topic.since))) {
      topic.seq = Math.max(topic.seq, seq!)
      topic.since = `${epoch}.${topic.seq}`
    }
    // What the connection knows of the topic goes on: it gets another token, and hears of what is gone.
    if (id) this.#say({ ...(stream ? { type: 'ack', exp: exp! } : ack), id })
    else this.#say({ type: 'pong' })
    if (stream && complete === false) this.#say({ type: 'gap', topic: topic.pattern, after, first: first!, ...(anew && { epoch }) })
    this.#proceed()
  }

  // What was before a source of a topic brings it no more.
  #retire(topic: Topic, source: Source): void {
    const { sources } = topic
    const at = sources.indexOf(source)
    if (at < 1) return
    for (const { overlap } of sources.slice(1, at + 1)) overlap?.end()
    for (const { stream } of sources.splice(0, at)) leave(topic, stream)
    this.#after(overlapLag, () => (source.overlap = undefined))
  }

  // Hands on what a source of a topic and those before it have brought.
  #pass(topic: Topic, source: Source | undefined, message: Message): void {
    const above = source && (topic.sources[topic.sources.indexOf(source) + 1]?.overlap ?? topic.notes)
    if (above) above.push(above.old, message)
    else this.#say(message)
  }

  // Notes from now on what a topic's sources bring, since another one is going to bring it too. A position needs no notes.
  #note(topic: Topic): void {
    const stream = last(topic)
    if (!stream || topic.since || topic.notes) return
    const notes: Overlap<Stream> = new Overlap(stream, (message) => this.#pass(topic, topic.sources.find(({ overlap }) => overlap === notes), message))
    topic.notes = notes
  }

  // Opens what a node brings that restarts, until another node answers; what it brings goes on until then.
  async #leaveNode(node: string, within: number): Promise<void> {
    if (this.#leaving.has(node)) return
    this.#leaving.add(node)
    const { signal } = this.#over
    const here = () => [...this.#topics.values()].filter((topic) => last(topic)?.node === node)
    for (const topic of here()) this.#note(topic)
    // The server tells all its clients at once: they spread themselves, and leave time for the move.
    await sleep(overlapLag + Math.random() * within * 500, signal)
    const end = Date.now() + within * 2000
    for (let attempt = 0; Date.now() < end && !signal.aborted; attempt++) {
      const rest = here().filter(({ opening }) => !opening)
      if (rest.length > 0) this.#open(...rest)
      else attempt = 0
      await sleep(pause(attempt, this.backoff), signal)
    }
    this.#leaving.delete(node)
  }

  // A request was refused. Topics that only came along stay where they are.
  #refuseAll(stream: Stream, error: RefusedError): void {
    const topics = [...stream.topics]
    for (const topic of topics) {
      topic.opening = undefined
      leave(topic, stream)
    }
    const those = topics.filter(asked)
    const ofToken = error.code.startsWith('token_')
    const auth = this.#auth
    if (auth && (ofToken || error.heals) && those.some(({ next }) => next === auth.token)) return this.#refuseAuth(auth, error)
    if (this.#token && ofToken && !error.heals) {
      if (those.length > 0) this.#end(4401, textOf(error))
      return
    }
    for (const topic of those) {
      if (topics.length > 1 && !ofToken && !error.heals) {
        // Which of them it was is not said.
        topic.alone = true
        this.#open(topic)
      } else this.#refuse(topic, error)
    }
  }

  #refuse(topic: Topic, error: RefusedError): void {
    const { id, pattern } = topic
    if (!last(topic) || !id) this.#forget(topic)
    topic.id = topic.next = undefined
    this.#say({ ...envelopeOf(error), id, topic: pattern })
    this.#proceed()
  }

  // The token of before stays.
  #refuseAuth({ id, token }: { id: string; token: string }, error: RefusedError): void {
    this.#auth = undefined
    for (const topic of this.#topics.values()) {
      if (topic.next !== token) continue
      if (topic.opening) leave(topic, topic.opening)
      topic.opening = undefined
      topic.next = topic.id && this.#token
      if (topic.id) this.#open(topic)
    }
    this.#say({ ...envelopeOf(error), id })
  }

  #forget(topic: Topic): void {
    this.#topics.delete(topic.pattern)
    for (const stream of [...topic.sources.splice(0).map(({ stream }) => stream), topic.opening]) if (stream) leave(topic, stream)
    topic.id = topic.next = topic.opening = undefined
    this.#proceed()
  }

  // Does what has waited for answers: the end of an auth, and publishes, in the order in which they came, when all subscribes
  // before them are answered.
  #proceed(): void {
    const topics = [...this.#topics.values()]
    const auth = this.#auth
    if (auth && topics.every(({ next }) => next !== auth.token)) {
      this.#token = auth.token
      this.#auth = undefined
      this.#say({ type: 'ack', id: auth.id })
    }
    if (this.#busy || this.#lines.length === 0 || topics.some(({ id }) => id)) return
    this.#busy = true
    const lines = this.#lines.splice(0, mostLines)
    const request = { method: 'POST', headers: { 'Content-Type': 'application/x-ndjson' }, body: lines.join('\n') + '\n', signal: this.#over.signal }
    fetch(call(this.url, 'publish'), request)
      .then(async (response) => {
        this.#worked ||= response.ok
        const refused = response.ok ? undefined : envelopeOf(refusal(response, await response.json().catch(() => undefined)))
        const results = refused ? [] : (await response.text()).split('\n')
        lines.forEach((line, i) => {
          const { id, topic } = JSON.parse(line)
          const result = refused ?? JSON.parse(results[i]!)
          this.#say({ ...result, id, topic, type: result.ok ? 'ack' : 'error' })
        })
        this.#busy = false
        this.#proceed()
      })
      .catch(() => this.#end(1006))
  }
}

/** Whether the client waits for a topic's answer, or has given it another token. */
const asked = ({ id, next }: Topic) => id || next

const unanswered = new RefusedError('unavailable', 'no answer')

/** The message of an error without its code. */
const textOf = ({ code, message }: RefusedError) => message.slice(code.length + 2)

/** As the server would say it. */
const envelopeOf = (error: RefusedError) => ({ type: 'error', code: error.code, message: textOf(error), retryAfter: error.retryAfter })

/** What brings a topic, and will go on. */
const last = ({ sources }: Topic) => sources.at(-1)?.stream

function leave(topic: Topic, { topics, over }: Stream): void {
  topics.delete(topic)
  if (topics.size === 0) over.abort()
}

/** since as the query has it. */
function queryOf(since: Since | undefined): string | undefined {
  if (!since) return
  if ('seq' in since) return since.epoch ? `${since.epoch}.${since.seq}` : String(since.seq)
  return 'last' in since ? `last:${since.last}` : since.time
}

/** For {@link Options.sse}. */
export const sse: ServerSentEvents = ({ transport = 'auto', onTransport, timeout = 10_000, backoff }, WebSocket) => {
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
      return new EventsSocket(url, protocols, timeout, { min: 250, max: 30_000, ...backoff }, (worked, code, reason) => worked || !WebSocket || transport === 'sse' || change(false, code, reason))
    }
    const socket = new WebSocket!(url, protocols) as Socket & EventTarget
    socket.addEventListener('message', () => (opened = true), { once: true })
    socket.addEventListener('close', async ({ code, reason }: any) => {
      // Where the server answers otherwise, something on the way does not let a WebSocket pass. Or it has come back just now. A
      // handshake whose token it refuses looks the same.
      blocked = !opened && code !== 1000 && (await answers(url, undefined, tokenOf(protocols))).ok ? blocked + 1 : 0
      if (blocked > 1 && !http) change(true, code, reason)
    })
    return socket
  }
  return Object.defineProperty(Transport, 'http', { get: () => http }) as unknown as SocketClass
}
