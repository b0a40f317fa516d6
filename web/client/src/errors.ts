/** Codes of docs/protocol.md, section 6, after which the same request may be sent again, after a pause. */
const heals = new Set(['rate_limited', 'unavailable', 'token_not_yet_valid'])

/** Close codes below 4000 that a client must not come back from by itself. */
const ends = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010])

/** Close codes of this protocol, from 4000 on, that a client comes back from. */
const returns = new Set([4408, 4410, 4429])

/** The server refused a request. */
export class RefusedError extends Error {
  override name = 'RefusedError'
  constructor(
    /** From the table of docs/protocol.md, section 6, such as `forbidden`. */
    readonly code: string,
    /** For a developer; it says what to fix. */
    message: string,
    /** The topic or pattern that the request was about, if any. */
    readonly topic?: string,
  ) {
    super(`${code}: ${message}`)
  }

  /** Whether the same request may succeed later. */
  get heals(): boolean {
    return heals.has(this.code)
  }

  /** Whether another token may do. */
  get expired(): boolean {
    return this.code === 'token_expired'
  }
}

/** The connection was closed, or never opened (code 1006, as browsers tell every refused handshake). */
export class ClosedError extends Error {
  override name = 'ClosedError'
  constructor(
    /** The close code (docs/protocol.md, section 6). */
    readonly code: number,
    readonly reason: string,
  ) {
    super(reason === '' ? `connection closed: ${code}` : `connection closed: ${code} ${reason}`)
  }

  /** Whether a client should connect again by itself. */
  get heals(): boolean {
    return this.code < 4000 ? !ends.has(this.code) : returns.has(this.code)
  }
}

/** No answer came: a publish may or may not have arrived. */
export class UnansweredError extends Error {
  override name = 'UnansweredError'
}
