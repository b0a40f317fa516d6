import { useState } from 'preact/hooks'
import { useSession } from '../hooks.js'
import type { Session } from '../session.js'
import { Countdown } from './countdown.js'
import { Dot, Field, Panel, Trouble, submitted, valueOf } from './parts.js'

const strategies: Record<string, string> = {
  message: 'each subscribe carries its token',
  'first-message': 'an auth envelope',
  header: 'not for pages',
  subprotocol: 'in Sec-WebSocket-Protocol',
  ticket: 'a ticket stands for it',
  query: 'in the address: ends up in logs',
}

export function Connect() {
  const session = useSession()
  const { about, state } = session
  return (
    <Panel title="Connection" id="connection" aside={<ConnectionState session={session} />}>
      <form onSubmit={submitted(() => (session.state === 'off' || session.state === 'closed' ? void session.start() : session.disconnect()))}>
        <div class="row">
          <Field label="Strategy" hint={strategies[session.strategy] ?? ''}>
            <select value={session.strategy} onChange={(e) => ((session.strategy = valueOf(e)), session.changed())} disabled={state !== 'off' && state !== 'closed'}>
              {(about?.strategies ?? ['message']).map((name) => (
                <option key={name} value={name} disabled={name === 'header'}>
                  {name}
                  {name === 'header' && ` (${strategies[name]})`}
                </option>
              ))}
            </select>
          </Field>
          <button class={state === 'off' || state === 'closed' ? 'primary' : ''}>{state === 'off' || state === 'closed' ? 'Connect' : 'Disconnect'}</button>
        </div>
      </form>
      {!session.token && about?.mint === 'yes' && <p class="empty">Without a token of yours, Connect mints one for everything.</p>}
      {session.cause && state !== 'connected' && <Trouble {...session.cause} />}
      <TokenBox session={session} />
    </Panel>
  )
}

export function ConnectionState({ session: { state, nodeID } }: { session: Session }) {
  const kinds = { off: 'off', connecting: 'warn', waiting: 'warn', connected: 'good', closed: 'bad' } as const
  const words = { off: 'not connected', connecting: 'connecting', waiting: 'waits to connect again', connected: `connected to ${nodeID ?? 'a node'}`, closed: 'closed for good' }
  return <Dot kind={kinds[state]}>{words[state]}</Dot>
}

function TokenBox({ session }: { session: Session }) {
  const [pasted, paste] = useState('')
  const { token } = session
  return (
    <>
      <form class="token" onSubmit={submitted(() => (session.use(pasted), paste('')))}>
        <div class="row">
          <Field label={token ? 'Another token' : 'Token'}>
            <input type="text" value={pasted} onInput={(e) => paste(valueOf(e))} placeholder="paste a JWT" autocomplete="off" spellcheck={false} />
          </Field>
          <button disabled={!pasted.trim()}>Use</button>
        </div>
      </form>
      {session.about?.mint === 'yes' && <Mint session={session} />}
      {session.about?.mint === 'locked' && (
        <p class="empty">
          To have tokens made here, open the address that the server printed when it started, with <code>#mint=</code> at its end. Or paste a token that it
          printed.
        </p>
      )}
      {(session.needsToken || session.ending) && (
        <p class="note warn" role="alert">
          Another token is needed: paste{session.about?.mint === 'yes' && ' or mint'} one.{' '}
          {session.ending === 'expiring' ? 'Until this one has expired, events go on, and none is lost.' : 'Until then nothing is delivered.'}
        </p>
      )}
      {token && (
        <div class="holds">
          <div class="spread">
            <span>
              Token of <code>{token.sub ?? 'nobody'}</code>
            </span>
            <Countdown token={token} />
          </div>
          {session.why && (
            <p class="note bad">
              Refused at the check <code>{session.why.checks.find((c) => c.result === 'failed')?.name}</code>: {session.why.checks.find((c) => c.result === 'failed')?.detail}.{' '}
              <a href="#token">All checks</a>
            </p>
          )}
          <label class="tick">
            <input type="checkbox" checked={session.remember} onChange={(e) => session.setRemember(e.currentTarget.checked)} /> Keep it in this browser
          </label>
        </div>
      )}
    </>
  )
}

const list = (text: string) => text.split(/[\s,]+/).filter(Boolean)

function Mint({ session }: { session: Session }) {
  const [sub, setSub] = useState('console')
  const [publish, setPublish] = useState('>')
  const [subscribe, setSubscribe] = useState('>')
  const [seconds, setSeconds] = useState('3600')
  return (
    <details>
      <summary>Mint a token</summary>
      <form onSubmit={submitted(() => void session.mint({ sub, publish: list(publish), subscribe: list(subscribe), seconds: Number(seconds) }))}>
        <div class="grid2">
          <Field label="Subject (sub)">
            <input value={sub} onInput={(e) => setSub(valueOf(e))} />
          </Field>
          <Field label="Lasts, in seconds">
            <input type="number" min="1" max="86400" value={seconds} onInput={(e) => setSeconds(valueOf(e))} required />
          </Field>
          <Field label="May publish">
            <input value={publish} onInput={(e) => setPublish(valueOf(e))} spellcheck={false} />
          </Field>
          <Field label="May subscribe">
            <input value={subscribe} onInput={(e) => setSubscribe(valueOf(e))} spellcheck={false} />
          </Field>
        </div>
        <div class="spread">
          <label class="tick">
            <input type="checkbox" checked={session.renew} onChange={(e) => ((session.renew = e.currentTarget.checked), session.changed())} /> Mint the next one by itself
          </label>
          <button>Mint and use</button>
        </div>
      </form>
    </details>
  )
}
