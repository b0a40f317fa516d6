/** What the node says of itself, at /console/node. */
export interface About {
  node: string
  version: string
  strategies: string[]
  require: boolean
  /** Whether it makes tokens: not at all, for pages that have the secret, or for this one. */
  mint: 'no' | 'locked' | 'yes'
  message_bytes: number
  streams: string[]
}

export interface StreamFigures {
  name: string
  ready: boolean
  problem?: string
  first: number
  last: number
  events: number
  bytes: number
  following: boolean
  position: number
  lag: number
  healed: number
  gaps: number
}

/** The node's figures, at /console/figures. */
export interface Figures {
  at: number
  node: string
  not_ready?: string
  server: {
    connections: number
    subscriptions: number
    topics: number
    pending_bytes: number
    verifying: number
    accepted: number
    published: number
    refused: number
    errors: number
    deliveries: number
    memo_hits: number
    bytes_in: number
    bytes_out: number
    slow: number
    turns: number
    turn_seconds: number
    turn_max: number
    /** Events by the time until they were written, and the bounds of these counts in seconds; the last one has none. */
    delays: number[]
    delay_bounds: number[]
  }
  tokens: { hits: number; misses: number; verified: number; refused: number; entries: number }
  nats: { connected: boolean; in: number; out: number; dropped: number; reconnects: number; subscriptions: number; pending: number }
  revocations: number
  revocations_age: number
  revocations_unsaved: number
  streams: StreamFigures[]
  goroutines: number
  memory: number
}

export interface Check {
  name: string
  result: 'passed' | 'failed' | 'open'
  detail?: string
}

/** What the node says of a token, at /console/inspect. */
export interface Inspection {
  header?: unknown
  claims?: unknown
  publish?: string[] | null
  subscribe?: string[] | null
  grant_fault?: string
  valid: boolean
  code?: string
  checks: Check[]
  now: string
}

export interface Wanted {
  sub: string
  publish: string[]
  subscribe: string[]
  seconds: number
  history?: string
  once?: boolean
  /** The one that the token is for, with its data as JSON text. */
  message?: { topic: string; data: string }
}

/** Where the page's own files are, such as /push/console/. */
const here = new URL('.', location.href)

/** The address of a call of the protocol, such as /v1/history. */
export const callURL = (path: string) => new URL(`../v1/${path}`, here)

/** With which a server of --dev makes tokens for this page: from the address that it printed, and in memory alone. */
let secret = ''

/** Takes the secret out of the address, if it is there: nobody is to copy it from there, or to see it. */
export function takeSecret(): boolean {
  const [, found] = /^#mint=(\w+)$/.exec(location.hash) ?? []
  if (!found) return false
  secret = found
  globalThis.history.replaceState(null, '', location.pathname + location.search)
  return true
}

async function ask<T>(path: string, { body, authorization }: { body?: unknown; authorization?: string } = {}): Promise<T> {
  const headers = { ...(body !== undefined && { 'Content-Type': 'application/json' }), ...(authorization && { Authorization: authorization }) }
  const response = await fetch(new URL(path, here), body === undefined ? { headers } : { method: 'POST', headers, body: JSON.stringify(body) })
  const answer = await response.json().catch(() => undefined)
  if (!response.ok) throw new Error(answer?.message ?? `status ${response.status}`)
  return answer
}

const withSecret = () => (secret ? { authorization: `Bearer ${secret}` } : {})

export const askNode = () => ask<About>('node', withSecret())
export const askFigures = () => ask<Figures>('figures')
export const inspect = (token: string) => ask<Inspection>('inspect', { body: { token } })
export const mint = async (wanted: Wanted) => (await ask<{ token: string }>('token', { body: wanted, ...withSecret() })).token

/** A page of stored events, or an error of the protocol. */
export interface HistoryPage {
  events: { topic: string; data: unknown; seq: number; time: string; from?: string }[]
  stream: string
  complete: boolean
  more: boolean
  first?: number
  next?: string
}

export class CallError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

export async function history(token: string, query: Record<string, string>): Promise<HistoryPage> {
  const url = callURL('history')
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value)
  const response = await fetch(url, { headers: { Authorization: `Bearer ${token}` } })
  const answer = await response.json().catch(() => undefined)
  if (!response.ok) throw new CallError(answer?.code ?? 'unavailable', answer?.message ?? `status ${response.status}`)
  return answer
}
