import { useState } from 'preact/hooks'
import { useSession } from '../hooks.js'
import { clock, readToken } from '../token.js'
import { Field, Panel, Trouble, submitted, valueOf } from './parts.js'

export function Publish() {
  const session = useSession()
  const mints = session.about?.mint === 'yes'
  const [topic, setTopic] = useState('demo.hello')
  const [text, setText] = useState('{"text": "hello"}')
  const [token, setToken] = useState('')
  const [bound, setBound] = useState(false)
  const [msgId, setMsgId] = useState('')
  const [ttl, setTTL] = useState('')
  const [wrong, setWrong] = useState('')
  const act = () => {
    let data: unknown
    try {
      data = JSON.parse(text)
    } catch (error) {
      return setWrong((error as Error).message)
    }
    setWrong('')
    void session.publish({ topic: topic.trim(), data, bound: bound && mints, ...(token && { token: readToken(token).text }), ...(msgId && { msgId }), ...(ttl && { ttl: Number(ttl) }) })
  }
  return (
    <Panel title="Publish" id="publish">
      <form onSubmit={submitted(act)} onKeyDown={(e) => (e.ctrlKey || e.metaKey) && e.key === 'Enter' && act()}>
        <Field label="Topic">
          <input value={topic} onInput={(e) => setTopic(valueOf(e))} spellcheck={false} autocapitalize="off" required />
        </Field>
        <Field label="Data (JSON)">
          <textarea rows={3} value={text} onInput={(e) => setText(valueOf(e))} spellcheck={false} />
        </Field>
        {wrong && <p class="note bad">{wrong}</p>}
        <details>
          <summary>Token, ttl, msg_id</summary>
          {mints && (
            <label class="tick">
              <input type="checkbox" checked={bound} onChange={(e) => setBound(e.currentTarget.checked)} /> Mint a token for each message, good for it alone and once
            </label>
          )}
          <Field label="Token for this message" hint="Empty: that of the connection.">
            <input value={token} onInput={(e) => setToken(valueOf(e))} autocomplete="off" spellcheck={false} disabled={bound && mints} />
          </Field>
          <div class="grid2">
            <Field label="ttl, in seconds">
              <input type="number" min="1" value={ttl} onInput={(e) => setTTL(valueOf(e))} />
            </Field>
            <Field label="msg_id">
              <input value={msgId} onInput={(e) => setMsgId(valueOf(e))} maxLength={64} spellcheck={false} />
            </Field>
          </div>
        </details>
        <div class="spread">
          <small class="muted">Ctrl + Enter</small>
          <button class="primary">Publish</button>
        </div>
      </form>
      <ul class="rows acks" aria-label="Answers" tabIndex={session.published.length > 0 ? 0 : undefined}>
        {session.published.map((p, i) => (
          <li key={p.n}>
            <div class="spread">
              <span class="muted">{clock(p.at)}</span>
              <code class="name">{p.topic}</code>
              {p.took !== undefined ? (
                <span class="good">
                  ack{p.seq !== undefined && ` seq ${p.seq}`}
                  {p.duplicate && ', a duplicate'} <span class="muted">{p.took.toFixed(1)} ms</span>
                </span>
              ) : p.code ? (
                i > 0 && <code class="bad">{p.code}</code>
              ) : (
                <span class="muted">…</span>
              )}
            </div>
            {i === 0 && p.code && <Trouble code={p.code} message={p.message} />}
          </li>
        ))}
      </ul>
    </Panel>
  )
}
