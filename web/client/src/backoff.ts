/** Bounds of the pause before a client tries again, in milliseconds. */
export interface Backoff {
  min: number
  max: number
}

/**
 * The pause before attempt n, counted from 0: random between 0 and min·2ⁿ, at most max. It is "full jitter", so that
 * clients which lost the same server do not come back together.
 */
export function pause(n: number, { min, max }: Backoff): number {
  return Math.random() * Math.min(max, min * 2 ** n)
}

/** Waits, and ends sooner when the signal fires. It never rejects. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}

/** A second is the least, so that tokens that live shorter than the server's notice do not make a busy loop. */
const leastRefresh = 1000

/**
 * When to replace a token that expires at exp (Unix seconds), in milliseconds from now. It is spread over the second
 * quarter of the time that is left, since the tokens of many clients may expire together.
 */
export function refreshDelay(exp: number): number {
  const quarter = (exp * 1000 - Date.now()) / 4
  return Math.max(leastRefresh, quarter + Math.random() * quarter)
}
