import type { Token } from '../token.js'
import { span } from '../token.js'
import { Dot } from './parts.js'

/** How long a token lasts still; the views are drawn again each second. */
export function Countdown({ token }: { token: Token }) {
  if (!token.claims) return <Dot kind="bad">this is no JWT</Dot>
  if (token.exp === undefined) return <Dot kind="bad">no exp: a server refuses it</Dot>
  const left = token.exp - Date.now() / 1000
  const at = new Date(token.exp * 1000).toLocaleString([], { hour12: false })
  const kind = left <= 0 ? 'bad' : left < 60 ? 'warn' : 'good'
  return (
    <Dot kind={kind}>
      <span title={at}>{left > 0 ? `expires in ${span(left)}` : `expired ${span(left)} ago`}</span>
    </Dot>
  )
}
