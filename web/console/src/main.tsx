import { render } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { takeSecret } from './api.js'
import { Watch } from './figures.js'
import { SessionContext, useSession } from './hooks.js'
import { Session } from './session.js'
import { Connect, ConnectionState } from './views/connect.js'
import { Errors } from './views/errors.js'
import { Events, Problems } from './views/events.js'
import { History } from './views/history.js'
import { Inspect } from './views/inspect.js'
import { NodeView } from './views/node.js'
import { Dot } from './views/parts.js'
import { Publish } from './views/publish.js'
import { Subscribe } from './views/subscribe.js'

takeSecret()
const session = new Session()
const watch = new Watch(
  () => session.roundTrips,
  () => session.changed(),
)

const views = { live: 'Live', history: 'History', token: 'Token', node: 'Node', errors: 'Errors' }
type View = keyof typeof views

const viewOf = (hash: string): View => (hash.slice(1) in views ? (hash.slice(1) as View) : 'live')

function NATSAway() {
  return (
    <p class="note bad" role="alert">
      NATS is unreachable. The node answers publishes with <code>unavailable</code>, and no events come. Connections and subscriptions stay, and go on by
      themselves when NATS is back; what was published elsewhere meanwhile then reaches subscriptions to durable topics, and no others. Does nats-server run,
      and does the node reach it at <code>nats.url</code>? The node’s log says what it has tried.
    </p>
  )
}

function App() {
  const { about, said } = useSession()
  const [view, setView] = useState(viewOf(location.hash))
  useEffect(
    () =>
      addEventListener('hashchange', () => {
        if (takeSecret()) void session.askAbout()
        setView(viewOf(location.hash))
      }),
    [],
  )
  useEffect(() => void (document.title = `${views[view]} – notifyd console`), [view])
  const { latest } = watch
  return (
    <>
      <header class="top">
        <h1>notifyd</h1>
        <nav aria-label="Views">
          {Object.entries(views).map(([name, title]) => (
            <a key={name} href={`#${name}`} aria-current={name === view ? 'page' : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <span class="states">
          <ConnectionState session={session} />
          {latest ? <Dot kind={latest.not_ready ? 'bad' : 'good'}>{latest.not_ready ? 'not ready' : 'node ready'}</Dot> : <Dot kind="bad">node unreachable</Dot>}
          <span class="muted">{about?.version}</span>
        </span>
      </header>
      <main>
        {latest && !latest.nats.connected && <NATSAway />}
        {view === 'live' && (
          <div class="live">
            <div>
              <Connect />
              <Subscribe />
              <Publish />
            </div>
            <div>
              <Events />
              <Problems />
            </div>
          </div>
        )}
        {view === 'history' && <History />}
        {view === 'token' && <Inspect />}
        {view === 'node' && <NodeView watch={watch} />}
        {view === 'errors' && <Errors />}
      </main>
      <p class="said" role="status">
        {said}
      </p>
    </>
  )
}

render(
  <SessionContext.Provider value={session}>
    <App />
  </SessionContext.Provider>,
  document.getElementById('root')!,
)
