/** A token as a person reads it. Nothing of it is verified here. */
export interface Token {
  text: string
  header: Record<string, unknown> | undefined
  claims: Record<string, unknown> | undefined
  sub: string | undefined
  /** Unix seconds. */
  exp: number | undefined
}

function part(text: string | undefined): Record<string, unknown> | undefined {
  if (!text) return undefined
  try {
    const bytes = Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0))
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

export function readToken(pasted: string): Token {
  const text = pasted.trim().replace(/^Bearer\s+/i, '').replace(/^"(.*)"$/, '$1')
  const parts = text.split('.')
  const [header, claims] = parts.length === 3 ? [part(parts[0]), part(parts[1])] : []
  return {
    text,
    header,
    claims,
    sub: typeof claims?.['sub'] === 'string' ? claims['sub'] : undefined,
    exp: typeof claims?.['exp'] === 'number' ? claims['exp'] : undefined,
  }
}

/** A time to come or past, such as "4 min 12 s". */
export function span(seconds: number): string {
  const s = Math.abs(Math.trunc(seconds))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`
}

export const clock = (ms: number) => new Date(ms).toLocaleTimeString([], { hour12: false }) + '.' + String(Math.floor(ms % 1000)).padStart(3, '0')
