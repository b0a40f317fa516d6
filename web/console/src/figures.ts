import { askFigures } from './api.js'
import type { Figures } from './api.js'

/** For how many seconds figures are kept. */
const most = 300

/** What is drawn, a value a second. */
export interface Sample {
  connections: number
  published: number
  deliveries: number
  hits: number
  turn: number
  turnMax: number
  pending: number
  roundTrip: number
  /** The p99 of the last seconds' events, in milliseconds. */
  delay: number
}

/** Over how many seconds the p99 of events is taken: in one there may be few. */
const delaySeconds = 10

/** Reads the node's figures each second while the page is in view. */
export class Watch {
  latest: Figures | undefined
  samples: Sample[] = []
  problem = ''
  #delays: number[][] = []

  constructor(
    private readonly roundTrips: () => number[],
    private readonly changed: () => void,
  ) {
    setInterval(() => document.visibilityState === 'visible' && void this.#read(), 1000)
    void this.#read()
  }

  async #read(): Promise<void> {
    try {
      const next = await askFigures()
      const before = this.latest
      this.latest = next
      this.problem = ''
      if (before?.node !== next.node) {
        this.samples = []
        this.#delays = []
      } else if (next.at > before.at) {
        const delay = delayQuantile(this.#delays[0]!, next.server.delays, next.server.delay_bounds, 0.99) * 1000
        this.samples = [...this.samples, { ...sample(before, next, this.roundTrips()), delay }].slice(-most)
      }
      this.#delays = [...this.#delays, next.server.delays].slice(-delaySeconds)
    } catch (error) {
      this.problem = (error as Error).message
      this.latest = undefined
    }
    this.changed()
  }
}

function sample(a: Figures, b: Figures, roundTrips: number[]): Omit<Sample, 'delay'> {
  const seconds = b.at - a.at
  const lookups = b.tokens.hits - a.tokens.hits + (b.server.memo_hits - a.server.memo_hits)
  const all = lookups + (b.tokens.misses - a.tokens.misses)
  const turns = b.server.turns - a.server.turns
  return {
    connections: b.server.connections,
    published: (b.server.published - a.server.published) / seconds,
    deliveries: (b.server.deliveries - a.server.deliveries) / seconds,
    hits: all > 0 ? (lookups / all) * 100 : NaN,
    turn: turns > 0 ? ((b.server.turn_seconds - a.server.turn_seconds) / turns) * 1000 : 0,
    turnMax: b.server.turn_max * 1000,
    pending: b.server.pending_bytes,
    roundTrip: quantile(roundTrips.slice(-60), 0.99),
  }
}

/** The delay in seconds that so large a part of the events between two readings was not above; NaN without any. */
function delayQuantile(before: number[], after: number[], bounds: number[], part: number): number {
  const counts = after.map((n, i) => n - before[i]!)
  let rank = part * counts.reduce((sum, n) => sum + n, 0)
  for (const [i, n] of counts.entries()) {
    if (n > 0 && rank <= n) {
      const from = i > 0 ? bounds[i - 1]! : 0
      return from + ((bounds[i] ?? from) - from) * (rank / n)
    }
    rank -= n
  }
  return NaN
}

/** The least value that so large a part of values is not above; NaN without any. */
export function quantile(values: number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? NaN
}
