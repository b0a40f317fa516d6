import { Client, ClosedError, RefusedError, UnansweredError } from '../../client/src/index.js'
import type { Event, Gap, Position, Since, State, Strategy, Subscribed, TokenRequest } from '../../client/src/index.js'
import { durable } from '../../client/src/durable.js'
import { askNode, callURL, inspect, mint } from './api.js'
import type { About, Inspection, Wanted } from './api.js'
import { tapped } from './tap.js'
import type { Frame } from './tap.js'
import { readToken } from './token.js'
import type { Token } from './token.js'

/** How many events, and how many problems, the page keeps. */
export const mostEvents = 1000
const mostProblems = 50

/** Where a token is kept when the person ticks it. */
const storeKey = 'notifyd-console-token'

export interface Entry {
  n: number
  at: number
  event: Event
  /** Topic and data, by which events are filtered. */
  text: string
  json: string
}

export interface Problem {
  n: number
  at: number
  code: string
  message: string
  about: string
}

export interface Subscription {
  pattern: string
  since: Since | undefined
  state: 'waiting' | 'live' | 'refused'
  code?: string
  message?: string
  count: number
  gaps: Gap[]
  handle?: Subscribed
}

export interface Publish {
  topic: string
  data: unknown
  token?: string
  /** Has a token made for this message, instead. */
  bound?: boolean
  msgId?: string
  ttl?: number
}

export interface Published {
  n: number
  at: number
  topic: string
  took?: number
  seq?: number
  duplicate?: boolean
  code?: string
  message?: string
}

const codeOf = (error: Error) => (error instanceof RefusedError || error instanceof ClosedError ? String(error.code) : error instanceof UnansweredError ? error.name : '')
const messageOf = (error: Error) => error.message.replace(/^[a-z_]+: /, '')

/** The token that is minted for a person who connects without one. */
const everything: Wanted = { sub: 'console', publish: ['>'], subscribe: ['>'], seconds: 3600 }

/** A token that is good for one message, once. */
const boundTo = (topic: string, data: string): Wanted => ({ sub: 'console', publish: [topic], subscribe: [], seconds: 60, once: true, message: { topic, data } })

/** Everything that the page knows; views show it, and are told when it has changed. */
export class Session {
  about: About | undefined
  state: State | 'off' = 'off'
  cause: { code: string; message: string } | undefined
  nodeID: string | undefined
  strategy = 'message'
  token: Token | undefined
  /** What the node says of a token that was refused. */
  why: Inspection | undefined
  /** In dev: a token is replaced by itself. */
  renew = false
  remember = false

  subscriptions: Subscription[] = []
  events: Entry[] = []
  held: Entry[] = []
  paused = false
  total = 0
  perSecond: number[] = []
  problems: Problem[] = []
  published: Published[] = []
  roundTrips: number[] = []
  /** What a screen reader is told. */
  said = ''

  #client: Client | undefined
  #wanted: Wanted | undefined
  #waiting: ((token: string) => void)[] = []
  /** Tokens that are no use on this connection any more, and why. */
  #spent = new Map<string, 'expiring' | 'refused'>()
  #publishToken: string | undefined
  #bound = false
  #listeners = new Set<() => void>()
  #n = 0
  #came = 0
  #told = false

  constructor() {
    const kept = localStorage.getItem(storeKey)
    if (kept) {
      this.token = readToken(kept)
      this.remember = true
    }
    setInterval(() => this.#tick(), 1000)
    void this.askAbout()
  }

  listen(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Tells the views, at most ten times a second: events come faster than anybody reads. */
  changed(): void {
    if (this.#told) return
    this.#told = true
    setTimeout(() => {
      this.#told = false
      for (const listener of this.#listeners) listener()
    }, 100)
  }

  say(text: string): void {
    this.said = text
    this.changed()
  }

  async askAbout(): Promise<void> {
    try {
      this.about = await askNode()
      if (!this.about.strategies.includes(this.strategy)) this.strategy = this.about.strategies.find((s) => s !== 'header') ?? 'message'
    } catch (error) {
      this.problem(error as Error, 'the node')
    }
    this.changed()
  }

  /** Takes a token into use: for what waits for one, and for all that is asked from now on. */
  use(text: string): void {
    const token = readToken(text)
    this.#wanted = undefined
    this.#take(token)
  }

  #take(token: Token): void {
    const waited = this.#waiting.length > 0
    // What uses a token that expires asks for the next one in time.
    const asks = waited || this.ending === 'expiring'
    const differs = token.text !== this.token?.text
    this.token = token
    this.why = undefined
    this.#keep()
    for (const resolve of this.#waiting.splice(0)) resolve(token.text)
    if (asks) this.say('The new token is in use.')
    else if (differs && this.state !== 'off') this.connect()
    this.changed()
  }

  setRemember(on: boolean): void {
    this.remember = on
    this.#keep()
    this.changed()
  }

  #keep(): void {
    if (this.remember && this.token) localStorage.setItem(storeKey, this.token.text)
    else localStorage.removeItem(storeKey)
  }

  /** Has the node make a token, and takes it into use. */
  async mint(wanted: Wanted): Promise<void> {
    try {
      const text = await mint(wanted)
      this.#take(readToken(text))
      this.#wanted = wanted
    } catch (error) {
      this.problem(error as Error, 'the token')
    }
  }

  /** Connects at a person's wish, with a token: where the node mints them, nobody needs to have one. */
  async start(): Promise<void> {
    if (!this.token && this.about?.mint === 'yes') await this.mint(everything)
    this.connect()
  }

  connect(): void {
    this.disconnect()
    void this.askAbout()
    this.#spent.clear()
    this.cause = undefined
    const query = this.strategy === 'query'
    this.#client = new Client(callURL('ws').href, {
      token: (request) => this.#provide(request),
      strategy: (query ? 'subprotocol' : this.strategy) as Strategy,
      durable,
      backoff: { min: 250, max: 5000 },
      WebSocket: tapped({ came: (frame, asked) => this.#frame(frame, asked), pinged: (ms) => this.#pinged(ms) }, query) as never,
      onState: (state, error) => this.#stateChanged(state, error),
      onError: (error) => this.problem(error, ''),
    })
    this.state = 'connecting'
    for (const subscription of this.subscriptions) this.#begin(subscription)
    this.changed()
  }

  disconnect(): void {
    for (const subscription of this.subscriptions) {
      const position = subscription.handle?.position
      if (position) subscription.since = position
      delete subscription.handle
      if (subscription.state === 'live') subscription.state = 'waiting'
    }
    const client = this.#client
    this.#client = undefined
    this.#waiting = []
    client?.close()
    this.state = 'off'
    this.roundTrips = []
    this.changed()
  }

  subscribe(pattern: string, since: Since | undefined): void {
    const before = this.subscriptions.find((s) => s.pattern === pattern)
    before?.handle?.unsubscribe()
    const subscription: Subscription = { pattern, since, state: 'waiting', count: 0, gaps: [] }
    this.subscriptions = [...this.subscriptions.filter((s) => s !== before), subscription]
    if (this.#client) this.#begin(subscription)
    this.changed()
  }

  unsubscribe(pattern: string): void {
    const subscription = this.subscriptions.find((s) => s.pattern === pattern)
    subscription?.handle?.unsubscribe()
    this.subscriptions = this.subscriptions.filter((s) => s !== subscription)
    this.changed()
  }

  /** Asks again for a subscription that was refused. */
  again(pattern: string): void {
    const subscription = this.subscriptions.find((s) => s.pattern === pattern)
    if (subscription) this.subscribe(pattern, subscription.since)
  }

  #begin(subscription: Subscription): void {
    const client = this.#client!
    subscription.state = 'waiting'
    delete subscription.code
    delete subscription.message
    const mine = () => this.#client === client && this.subscriptions.includes(subscription)
    subscription.handle = client.subscribe(
      subscription.pattern,
      (event) => this.#event(subscription, event),
      (error) => {
        if (!mine()) return
        subscription.state = 'refused'
        subscription.code = codeOf(error)
        subscription.message = messageOf(error)
        this.say(`The subscription to ${subscription.pattern} was refused: ${subscription.code}`)
      },
      {
        ...(subscription.since && { since: subscription.since }),
        onGap: (gap) => {
          subscription.gaps.push(gap)
          this.changed()
        },
      },
    )
    subscription.handle.ready.then(
      () => {
        if (!mine()) return
        subscription.state = 'live'
        this.changed()
      },
      () => {},
    )
  }

  #event(subscription: Subscription, event: Event): void {
    subscription.count++
    this.total++
    this.#came++
    const json = JSON.stringify(event.data)
    const entry = { n: ++this.#n, at: Date.now(), event, json, text: `${event.topic} ${json}`.toLowerCase() }
    const into = this.paused ? this.held : this.events
    into.push(entry)
    if (into.length > mostEvents) into.splice(0, into.length - mostEvents)
    this.changed()
  }

  setPaused(on: boolean): void {
    this.paused = on
    if (!on) {
      this.events = [...this.events, ...this.held].slice(-mostEvents)
      this.held = []
    }
    this.changed()
  }

  clear(): void {
    this.events = []
    this.held = []
    this.changed()
  }

  async publish({ topic, data, token, bound, msgId, ttl }: Publish): Promise<void> {
    const entry: Published = { n: ++this.#n, at: Date.now(), topic }
    this.published = [entry, ...this.published].slice(0, 20)
    this.changed()
    if (!this.#client) {
      Object.assign(entry, { code: 'not connected', message: 'connect first' })
      return
    }
    const began = performance.now()
    try {
      this.#publishToken = token
      this.#bound = bound ?? false
      const stored = await this.#client.publish(topic, data, { ...(msgId && { msgId }), ...(ttl && { ttl }) })
      Object.assign(entry, stored, { took: performance.now() - began })
    } catch (error) {
      Object.assign(entry, { code: codeOf(error as Error) || 'not sent', message: messageOf(error as Error) })
    }
    this.changed()
  }

  problem(error: Error, about: string): void {
    const problem = { n: ++this.#n, at: Date.now(), code: codeOf(error), message: messageOf(error), about: error instanceof RefusedError && error.topic ? error.topic : about }
    this.problems = [problem, ...this.problems].slice(0, mostProblems)
    this.changed()
  }

  /** Whether something waits for another token than the one that is there. */
  get needsToken(): boolean {
    return this.#waiting.length > 0
  }

  /** What is wrong with the token on this connection, as the server has said. */
  get ending(): 'expiring' | 'refused' | undefined {
    return this.token && this.#spent.get(this.token.text)
  }

  // A token that the server has called expiring, or has refused, is not presented again: what wants one waits for another.
  #provide(request: TokenRequest): string | Promise<string> {
    if (request.action === 'publish') {
      if (this.#bound) return mint(boundTo(request.topic!, request.data!))
      const token = this.#publishToken ?? this.token?.text
      if (!token) throw new RefusedError('token_missing', 'there is no token to publish with', request.topic)
      return token
    }
    const token = this.token?.text
    const spent = this.#spent.get(token ?? '')
    if (token && (!spent || (spent === 'expiring' && this.state !== 'connected'))) return token
    const next = new Promise<string>((resolve) => this.#waiting.push(resolve))
    if (this.renew && this.#wanted) void this.mint(this.#wanted)
    this.changed()
    return next
  }

  #frame(frame: Frame, asked: Frame | undefined): void {
    const current = this.token?.text
    switch (frame.type) {
      case 'welcome':
        this.nodeID = (frame as { node?: string }).node
        // The token may be good for as long as it lasts, on each connection.
        for (const [token, why] of this.#spent) if (why === 'expiring') this.#spent.delete(token)
        break
      case 'expiring':
        if (current && frame.exp === Math.floor(this.token?.exp ?? 0)) this.#spend(current, 'expiring')
        break
      case 'expired':
        if (current) this.#spend(current, 'refused')
        break
      case 'restart':
        this.say('The node restarts; the client moves to another one.')
        break
      case 'error':
        if (!frame.code?.startsWith('token_') || frame.code === 'token_not_yet_valid' || asked?.type === 'publish') break
        if (asked?.token ? asked.token === current : current) this.#spend(current!, 'refused')
        void this.askWhy()
    }
    this.changed()
  }

  #spend(token: string, why: 'expiring' | 'refused'): void {
    this.#spent.set(token, why)
    if (why === 'expiring') this.say('The token expires soon. Give another one, and nothing is lost.')
    else this.say('The token is good no more. Subscriptions wait for another one.')
  }

  /** Has the node say why it refuses the token. */
  async askWhy(): Promise<void> {
    const token = this.token
    if (!token) return
    const why = await inspect(token.text).catch(() => undefined)
    if (token !== this.token || !why || why.valid) return
    this.why = why
    this.changed()
  }

  #pinged(ms: number): void {
    this.roundTrips.push(ms)
    if (this.roundTrips.length > 300) this.roundTrips.shift()
  }

  #stateChanged(state: State, error?: Error): void {
    this.state = state
    if (error) {
      this.cause = { code: codeOf(error), message: messageOf(error) }
      if (this.strategy !== 'message' && this.token) void this.askWhy()
    }
    if (state === 'connected') {
      this.cause = undefined
      void this.askAbout()
    }
    if (state === 'closed') this.#client = undefined
    this.say(`Connection: ${state}`)
  }

  #tick(): void {
    this.perSecond.push(this.#came)
    this.#came = 0
    if (this.perSecond.length > 60) this.perSecond.shift()
    this.changed() // countdowns
  }
}

export type { Position, Since }
