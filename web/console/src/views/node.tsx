import type { Sample, Watch } from '../figures.js'
import { useSession } from '../hooks.js'
import { span } from '../token.js'
import { Line } from './chart.js'
import { Dot, Panel } from './parts.js'

const number = (v: number, digits = 0) => (Number.isNaN(v) ? '–' : v.toLocaleString('en', { maximumFractionDigits: digits }))

function bytes(v: number): string {
  for (const unit of ['B', 'KiB', 'MiB']) {
    if (v < 1024) return `${number(v, 1)} ${unit}`
    v /= 1024
  }
  return `${number(v, 1)} GiB`
}

export function NodeView({ watch }: { watch: Watch }) {
  const { about } = useSession()
  const { latest: f, samples, problem } = watch
  if (!f) return <Panel title="Node" id="node">{problem ? <p class="note bad">The figures cannot be read: {problem}</p> : <p class="empty">Reading …</p>}</Panel>
  const now = samples.at(-1)
  const chart = (title: string, unit: string, of: (s: Sample) => number, format: (v: number) => string, top?: number, hint?: string) => {
    const values = samples.map(of).map((v) => (Number.isNaN(v) ? 0 : v))
    const shown = now ? format(of(now)) : '–'
    return (
      <figure>
        <figcaption>
          <span title={hint}>{title}</span>
          <b>
            {shown} <small>{unit}</small>
          </b>
        </figcaption>
        <Line values={values} label={`${title}, now ${shown} ${unit}`} {...(top && { top })} />
        {hint && <small class="muted">{hint}</small>}
      </figure>
    )
  }
  return (
    <>
      <Panel
        title="Node"
        id="node"
        aside={
          <span class="states">
            <Dot kind={f.not_ready ? 'bad' : 'good'}>{f.not_ready ?? 'ready'}</Dot>
            <Dot kind={f.nats.connected ? 'good' : 'bad'}>{f.nats.connected ? 'NATS connected' : 'NATS unreachable'}</Dot>
          </span>
        }
      >
        <p class="muted">
          <code>{f.node}</code> runs {about?.version ?? ''}. The charts show the last five minutes.
        </p>
        <div class="charts">
          {chart('Connections', '', (s) => s.connections, number)}
          {chart('Events published', '/s', (s) => s.published, number)}
          {chart('Deliveries', '/s', (s) => s.deliveries, number)}
          {chart('Delivery, p99', 'ms', (s) => s.delay, (v) => number(v, 2), undefined, 'from an event’s arrival on the node to its last subscriber there, in the last 10 s')}
          {chart('Round trip, p99', 'ms', (s) => s.roundTrip, (v) => number(v, 1), undefined, 'of this page’s pings in the last minute')}
          {chart('Loop turn, mean', 'ms', (s) => s.turn, (v) => number(v, 3))}
          {chart('Loop turn, longest', 'ms', (s) => s.turnMax, (v) => number(v, 2), undefined, 'what a message may wait for its loop')}
          {chart('Token cache hits', '%', (s) => s.hits, (v) => number(v, 1), 100)}
          {chart('Owed to slow readers', '', (s) => s.pending, bytes)}
        </div>
      </Panel>
      <div class="columns">
        <Panel title="Numbers" id="numbers">
          <dl>
            <dt>subscriptions</dt>
            <dd>{number(f.server.subscriptions)}</dd>
            <dt>topics and patterns with subscribers</dt>
            <dd>{number(f.server.topics)}</dd>
            <dt>tokens remembered</dt>
            <dd>{number(f.tokens.entries)}</dd>
            <dt>tokens verified, refused</dt>
            <dd>
              {number(f.tokens.verified)}, {number(f.tokens.refused)}
            </dd>
            <dt>signatures waiting</dt>
            <dd>{number(f.server.verifying)}</dd>
            <dt>publishes accepted, refused</dt>
            <dd>
              {number(f.server.published)}, {number(f.server.refused)}
            </dd>
            <dt>slow readers closed</dt>
            <dd>{number(f.server.slow)}</dd>
            <dt>bytes in, out</dt>
            <dd>
              {bytes(f.server.bytes_in)}, {bytes(f.server.bytes_out)}
            </dd>
            <dt>memory, goroutines</dt>
            <dd>
              {bytes(f.memory)}, {number(f.goroutines)}
            </dd>
          </dl>
        </Panel>
        <Panel title="NATS and revocations" id="nats">
          <dl>
            <dt>events to, from NATS</dt>
            <dd>
              {number(f.nats.out)}, {number(f.nats.in)}
            </dd>
            <dt>waiting for the loops</dt>
            <dd>{number(f.nats.pending)}</dd>
            <dt>subscriptions at NATS</dt>
            <dd>{number(f.nats.subscriptions)}</dd>
            <dt>lost, connections made again</dt>
            <dd>
              {number(f.nats.dropped)}, {number(f.nats.reconnects)}
            </dd>
            <dt>revocations in force</dt>
            <dd>{number(f.revocations)}</dd>
            <dt>news of revocations</dt>
            <dd>{f.revocations_age < 0 ? 'not loaded' : `${span(f.revocations_age)} old`}</dd>
            <dt>in force here, not in NATS</dt>
            <dd>{number(f.revocations_unsaved)}</dd>
          </dl>
        </Panel>
      </div>
      <Panel title="Streams" id="streams">
        {f.streams.length === 0 ? (
          <p class="empty">None are declared. docs/streams.md says what they are good for.</p>
        ) : (
          <div class="scroll" tabIndex={0} role="region" aria-labelledby="streams">
            <table class="numbers">
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>Events</th>
                  <th>Bytes</th>
                  <th>First</th>
                  <th>Last</th>
                  <th>Handed on</th>
                  <th>Behind</th>
                  <th>Healed</th>
                  <th>Gaps</th>
                </tr>
              </thead>
              <tbody>
                {f.streams.map((s) => (
                  <tr key={s.name}>
                    <th scope="row">{s.name}</th>
                    <td>
                      <Dot kind={s.ready ? (s.problem ? 'warn' : 'good') : 'bad'}>{s.problem ?? (s.ready ? 'ready' : 'not there')}</Dot>
                    </td>
                    <td>{number(s.events)}</td>
                    <td>{bytes(s.bytes)}</td>
                    <td>{s.first}</td>
                    <td>{s.last}</td>
                    <td>{s.following ? s.position : '–'}</td>
                    <td>{number(s.lag)}</td>
                    <td>{number(s.healed)}</td>
                    <td>{number(s.gaps)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Panel>
    </>
  )
}
