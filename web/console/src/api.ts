/** What the node says of itself, at /console/node. */
export interface About {
  node: string
  version: string
  strategies: string[]
  require: boolean
  mint: boolean
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
}

/** Where the page's own files are, such as /push/console/. */
const here = new URL('.', location.href)

/** The address of a call of the protocol, such as /v1/history. */
export const callURL = (path: string) => new URL(`../v1/${path}`, here)

async function ask<T>(path: string, body?: unknown): Promise<T> {
  const request = body === undefined ? {} : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  const response = await fetch(new URL(path, here), request)
  const answer = await response.json().catch(() => undefined)
  if (!response.ok) throw new Error(answer?.message ?? `status ${response.status}`)
  return answer
}

export const askNode = () => ask<About>('node')
export const askFigures = () => ask<Figures>('figures')
export const inspect = (token: string) => ask<Inspection>('inspect', { token })
export const mint = async (wanted: Wanted) => (await ask<{ token: string }>('token', wanted)).token

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
