import { RefusedError } from './errors.js'

/** Asks the server at url, such as wss://host/v1/ws, for a ticket that stands for the token (docs/protocol.md, section 7). */
export async function askTicket(url: string, token: string, timeout: number, signal: AbortSignal): Promise<string> {
  const place = new URL('tickets', url.replace('ws', 'http'))
  const over = new AbortController()
  const stop = () => over.abort()
  const timer = setTimeout(stop, timeout)
  signal.addEventListener('abort', stop, { signal: over.signal })
  try {
    signal.throwIfAborted()
    const response = await fetch(place, { method: 'POST', headers: { Authorization: `Bearer ${token}` }, signal: over.signal })
    const body = await response.json().catch(() => undefined)
    if (response.ok && body?.ticket) return body.ticket
    throw refusal(response, body)
  } finally {
    clearTimeout(timer)
    stop()
  }
}

/** The error that an answer stands for. One without a code is a proxy's. */
export function refusal(response: Response, body?: { code?: string; message?: string }): RefusedError {
  const { status } = response
  const code = status === 401 ? 'token_invalid' : status >= 500 || status === 429 ? 'unavailable' : 'unknown'
  return new RefusedError(body?.code ?? code, body?.message ?? `status ${status}`, undefined, readRetryAfter(response))
}

/** Retry-After in milliseconds: seconds or a date (RFC 9110 §10.2.3). What is neither is 0, and five minutes are the most that is believed. */
function readRetryAfter({ headers }: Response): number {
  const text = headers.get('Retry-After') ?? ''
  const ms = /^\d+$/.test(text) ? +text * 1000 : Date.parse(text) - Date.now()
  return Math.min(Math.max(ms || 0, 0), 300_000)
}
