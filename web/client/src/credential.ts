import type { RefusedError } from './errors.js'

/** Presents a token for one purpose, and gives what came of it. */
export type Credential = <T>(use: (token: string) => Promise<T>) => Promise<T>

/**
 * Presents the tokens that ask gives. One that was refused since it is not valid yet is presented again: from an issuer
 * whose clock is ahead, each new token would be as early as the one before.
 */
export function credential(ask: () => Promise<string>): Credential {
  let early: string | undefined
  return async (use) => {
    const token = early ?? (await ask())
    early = undefined
    try {
      return await use(token)
    } catch (error) {
      if ((error as RefusedError)?.code === 'token_not_yet_valid') early = token
      throw error
    }
  }
}
