import { useState } from 'preact/hooks'
import { CallError, history } from '../api.js'
import type { HistoryPage } from '../api.js'
import { useSession } from '../hooks.js'
import { Field, Panel, Trouble, submitted, valueOf } from './parts.js'

/** Stored events, page by page. */
export function History() {
  const session = useSession()
  const [topic, setTopic] = useState('')
  const [since, setSince] = useState('')
  const [limit, setLimit] = useState('100')
  const [page, setPage] = useState<HistoryPage>()
  const [trouble, setTrouble] = useState<{ code: string; message: string }>()
  const load = async (from: string) => {
    setTrouble(undefined)
    try {
      if (!session.token) throw new CallError('token_missing', 'give a token in the view Live')
      setPage(await history(session.token.text, { topic: topic.trim(), since: from, limit }))
    } catch (error) {
      setPage(undefined)
      setTrouble({ code: error instanceof CallError ? error.code : 'unavailable', message: (error as Error).message })
    }
  }
  return (
    <Panel title="History" id="history" aside={<span class="muted">streams: {session.about?.streams.join(', ') || 'none'}</span>}>
      <form onSubmit={submitted(() => void load(since.trim()))}>
        <div class="row">
          <Field label="Topic or pattern">
            <input value={topic} onInput={(e) => setTopic(valueOf(e))} spellcheck={false} autocapitalize="off" required />
          </Field>
          <Field label="Since">
            <input value={since} onInput={(e) => setSince(valueOf(e))} spellcheck={false} />
          </Field>
          <Field label="Limit">
            <input class="short" type="number" min="1" max="1000" value={limit} onInput={(e) => setLimit(valueOf(e))} />
          </Field>
          <button class="primary">Read</button>
        </div>
        <small>Since is SEQ, EPOCH.SEQ, last:N or a time such as 2026-02-01T10:00:00Z; empty: the oldest that there is.</small>
      </form>
      {trouble && <Trouble {...trouble} />}
      {page && (
        <>
          <div class="spread">
            <span class="muted">
              stream <code>{page.stream}</code>, {page.events.length} events{page.complete ? '' : `, and older ones are gone or may not be read${page.first ? ` (the first is ${page.first})` : ''}`}
            </span>
            <button disabled={!page.more || !page.next} onClick={() => void load(page.next!)}>
              Next page
            </button>
          </div>
          <div class="scroll" tabIndex={0} role="region" aria-labelledby="history">
            <table>
              <thead>
                <tr>
                  <th>Seq</th>
                  <th>Time</th>
                  <th>Topic</th>
                  <th>Data</th>
                </tr>
              </thead>
              <tbody>
                {page.events.map((e) => (
                  <tr key={e.seq}>
                    <td>{e.seq}</td>
                    <td>{new Date(e.time).toLocaleString([], { hour12: false })}</td>
                    <td>
                      <code>{e.topic}</code>
                    </td>
                    <td class="data">{JSON.stringify(e.data)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </Panel>
  )
}
