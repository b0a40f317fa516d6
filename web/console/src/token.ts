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

const day = 86_400

/** What is worth a second look, though a server may accept it; and what none accepts. */
export function warnings({ claims, exp }: Token): string[] {
  if (!claims) return []
  const all: string[] = []
  const number = (name: string) => (typeof claims[name] === 'number' ? claims[name] : undefined)
  const [iat, nbf, now] = [number('iat'), number('nbf'), Date.now() / 1000]
  if (exp === undefined) all.push('exp is missing or no number: every server refuses the token.')
  else if (exp > 1e11) all.push('exp looks like milliseconds; it is in seconds.')
  else if (exp - (iat ?? now) > 7 * day) all.push(`It lasts ${span(exp - (iat ?? now))}. Whoever finds it has as long; a client can fetch a new one each hour.`)
  if (iat === undefined) all.push('Without iat, revoking all tokens of a subject ends this one whenever it was issued.')
  else if (iat > now + 5) all.push(`iat is ${span(iat - now)} ahead: the clock of the issuer, or of this machine, is wrong.`)
  if (nbf !== undefined && nbf > now + 5) all.push(`It is not valid before ${span(nbf - now)} from now.`)
  if (!claims['notify'] && !claims['authorization_details']) all.push('There is no notify and no authorization_details: it grants nothing.')
  if (claims['sub'] === undefined && claims['jti'] === undefined) all.push('Without sub and jti it cannot be revoked.')
  return all
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
