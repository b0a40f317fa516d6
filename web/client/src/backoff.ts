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

/** Waits for so many milliseconds, or for a promise, and ends sooner when the signal fires. It never rejects. */
export function sleep(time: number | Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = typeof time === 'number' ? setTimeout(done, time) : void time.then(done)
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  })
}

/**
 * When to replace a token that expires at exp (Unix seconds), in milliseconds from now; ahead is by how many the server's
 * clock is. It is spread over the second quarter of the time that is left, since the tokens of many clients may expire together.
 */
export function refreshDelay(exp: number, ahead: number): number {
  return ((exp * 1000 - ahead - Date.now()) / 4) * (1 + Math.random())
}
