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
  return Math.random() * Math.min(max, min * 2 ** Math.min(n, 30))
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
