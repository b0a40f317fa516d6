import { useState } from 'preact/hooks'
import type { Since } from '../../../client/src/index.js'
import { useSession } from '../hooks.js'
import type { Session, Subscription } from '../session.js'
import { Dot, Field, Panel, Trouble, submitted, valueOf } from './parts.js'

function sinceOf(kind: string, value: string): Since | undefined {
  switch (kind) {
    case 'all':
      return { seq: 0 }
    case 'last':
      return { last: Number(value || '1') }
    case 'seq':
      return { seq: Number(value || '0') }
    case 'time':
      return { time: new Date(value).toISOString() }
  }
  return undefined
}

function State({ subscription: { state }, session }: { subscription: Subscription; session: Session }) {
  if (state === 'refused') return <Dot kind="bad">refused</Dot>
  if (session.state !== 'connected') return <Dot kind={session.state === 'off' ? 'off' : 'warn'}>{state === 'live' ? 'interrupted' : 'not connected'}</Dot>
  if (session.needsToken && session.ending !== 'expiring') return <Dot kind="warn">waits for a token</Dot>
  return state === 'live' ? <Dot kind="good">live</Dot> : <Dot kind="warn">waiting</Dot>
}

export function Subscribe() {
  const session = useSession()
  const [pattern, setPattern] = useState('demo.>')
  const [kind, setKind] = useState('now')
  const [value, setValue] = useState('')
  const [wrong, setWrong] = useState('')
  const act = () => {
    try {
      setWrong('')
      session.subscribe(pattern.trim(), sinceOf(kind, value))
    } catch {
      setWrong('this is no time')
    }
  }
  return (
    <Panel title="Subscriptions" id="subscriptions">
      <form onSubmit={submitted(act)}>
        <div class="row">
          <Field label="Topic or pattern">
            <input value={pattern} onInput={(e) => setPattern(valueOf(e))} spellcheck={false} autocapitalize="off" required />
          </Field>
          <Field label="From">
            <select value={kind} onChange={(e) => (setKind(valueOf(e)), setValue(''))}>
              <option value="now">now on</option>
              <option value="all">everything kept</option>
              <option value="last">the last …</option>
              <option value="seq">behind seq …</option>
              <option value="time">a time …</option>
            </select>
          </Field>
          {kind === 'last' || kind === 'seq' ? (
            <Field label={kind === 'last' ? 'Events' : 'Seq'}>
              <input class="short" type="number" min="0" value={value} onInput={(e) => setValue(valueOf(e))} required />
            </Field>
          ) : (
            kind === 'time' && (
              <Field label="Time">
                <input type="datetime-local" step="1" value={value} onInput={(e) => setValue(valueOf(e))} required />
              </Field>
            )
          )}
          <button>Subscribe</button>
        </div>
        {wrong && <p class="note bad">{wrong}</p>}
      </form>
      {session.subscriptions.length === 0 ? (
        <p class="empty">None yet. {session.about?.streams.length ? `Streams that keep events: ${session.about.streams.join(', ')}.` : 'No stream keeps events here, so that they come from now on.'}</p>
      ) : (
        <ul class="rows">
          {session.subscriptions.map((s) => (
            <li key={s.pattern}>
              <div class="spread">
                <code class="name">{s.pattern}</code>
                <span class="muted">
                  {s.count} events{s.handle?.position ? `, at seq ${s.handle.position.seq}` : ''}
                </span>
                <State subscription={s} session={session} />
                {s.state === 'refused' && <button onClick={() => session.again(s.pattern)}>Again</button>}
                <button aria-label={`Unsubscribe from ${s.pattern}`} onClick={() => session.unsubscribe(s.pattern)}>
                  ×
                </button>
              </div>
              {s.code && <Trouble code={s.code} message={s.message} />}
              {s.gaps.map((gap) => (
                <p class="note warn" key={gap.after}>
                  Events behind {gap.after}
                  {gap.first !== undefined && ` and before ${gap.first}`} are gone{gap.epoch && ': the stream was made anew'}.
                </p>
              ))}
            </li>
          ))}
        </ul>
      )}
    </Panel>
  )
}
