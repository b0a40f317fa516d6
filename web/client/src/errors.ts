/** Codes of docs/protocol.md, section 6, after which the same request may be sent again, after a pause. */
const heals = /^(rate_limited|unavailable|token_not_yet_valid)$/

/**
 * Close codes after which a client comes back by itself: those below 4000 but 1000, 1002, 1003 and 1007 to 1010, and of this
 * protocol four; 4401 with another token.
 */
const returns = /^(?!100[023789]|1010)[0-3]|^44(01|08|10|29)/

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
    return heals.test(this.code)
  }
}

/** The connection was closed, or never opened (code 1006, as browsers tell every refused handshake). */
export class ClosedError extends Error {
  override name = 'ClosedError'
  /** How long the server asks to wait, in milliseconds, if it does. */
  declare readonly retryAfter?: number | undefined
  constructor(
    /** The close code (docs/protocol.md, section 6). */
    readonly code: number,
    readonly reason: string,
  ) {
    super(`connection closed: ${code} ${reason}`.trim())
  }

  /** Whether a client should connect again by itself. */
  get heals(): boolean {
    return returns.test(this.code as unknown as string)
  }
}

/** No answer came: a publish may or may not have arrived. */
export class UnansweredError extends Error {
  override name = 'UnansweredError'
}

/** How long the server asks to wait, in milliseconds. */
export function retryAfter(error: unknown): number {
  return (error as RefusedError | ClosedError | undefined)?.retryAfter ?? 0
}

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
   * Whether they are enough for a client, or a subscription, to give up: three at least. A server may refuse good tokens for a
   * while, such as when it still has the issuer's keys of before a rotation, so that a number alone does not say that no token
   * will do.
   */
  enough(longestPause: number): boolean {
    return this.#count > 2 && Date.now() - this.#since >= 2 * longestPause
  }
}
