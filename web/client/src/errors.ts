/** Codes of docs/protocol.md, section 6, after which the same request may be sent again, after a pause. */
const heals = ['rate_limited', 'unavailable', 'token_not_yet_valid']

/** Close codes below 4000 that a client must not come back from by itself. */
const ends = [1000, 1002, 1003, 1007, 1008, 1009, 1010]

/** Close codes of this protocol, from 4000 on, that a client comes back from; 4401 with another token. */
const returns = [4401, 4408, 4410, 4429]

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
    /** How long the server asks to wait, in milliseconds, if it does. */
    readonly retryAfter?: number,
  ) {
    super(`${code}: ${message}`)
  }

  /** Whether the same request may succeed later. */
  get heals(): boolean {
    return heals.includes(this.code)
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
    super(`connection closed: ${code} ${reason}`.trim())
  }

  /** Whether a client should connect again by itself. */
  get heals(): boolean {
    return this.code < 4000 ? !ends.includes(this.code) : returns.includes(this.code)
  }
}

/** No answer came: a publish may or may not have arrived. */
export class UnansweredError extends Error {
  override name = 'UnansweredError'
}

/** How often in a row tokens must be refused, at least, before a client, or a subscription, gives up. */
const tokenAttempts = 3

/** Refused tokens of a row. */
export class Refusals {
  #count = 0
  #since = 0

  add(): number {
    if (this.#count++ === 0) this.#since = Date.now()
    return this.#count
  }

  clear(): void {
    this.#count = 0
  }

  /**
   * Whether they are enough to stop. A server may refuse good tokens for a while, such as when it still has the issuer's
   * keys of before a rotation, so that a number alone does not say that no token will do.
   */
  enough(longestPause: number): boolean {
    return this.#count >= tokenAttempts && Date.now() - this.#since >= 2 * longestPause
  }
}
