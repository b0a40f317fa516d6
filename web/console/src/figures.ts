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
}

/** Reads the node's figures each second while the page is in view. */
export class Watch {
  latest: Figures | undefined
  samples: Sample[] = []
  problem = ''

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
      if (before?.node !== next.node) this.samples = []
      else if (next.at > before.at) this.samples = [...this.samples, sample(before, next, this.roundTrips())].slice(-most)
    } catch (error) {
      this.problem = (error as Error).message
      this.latest = undefined
    }
    this.changed()
  }
}

function sample(a: Figures, b: Figures, roundTrips: number[]): Sample {
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

/** The least value that so large a part of values is not above; NaN without any. */
export function quantile(values: number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? NaN
}
