import { useEffect, useState } from 'preact/hooks'
import { inspect } from '../api.js'
import type { Inspection } from '../api.js'
import { checks } from '../codes.js'
import { useSession } from '../hooks.js'
import { readToken, warnings } from '../token.js'
import { Countdown } from './countdown.js'
import { Field, Panel, Trouble, submitted, valueOf } from './parts.js'

const marks = { passed: '✓', failed: '✗', open: '·' }

/** A token decoded, and what the node says of it, check by check. */
export function Inspect() {
  const session = useSession()
  const [pasted, paste] = useState('')
  const [asked, ask] = useState(session.token?.text ?? '')
  const [found, setFound] = useState<Inspection>()
  const [wrong, setWrong] = useState('')
  useEffect(() => {
    if (!asked) return
    let current = true
    inspect(asked).then(
      (answer) => current && (setFound(answer), setWrong('')),
      (error: Error) => current && setWrong(error.message),
    )
    return () => void (current = false)
  }, [asked, Math.floor(Date.now() / 5000)])
  const token = asked ? readToken(asked) : undefined
  return (
    <div class="columns">
      <Panel title="Token" id="token-panel" aside={token && <Countdown token={token} />}>
        <form onSubmit={submitted(() => ask(readToken(pasted).text))}>
          <Field label="Token to inspect" hint="It goes to this node alone, in the body of a request, and is not kept.">
            <textarea rows={4} value={pasted} onInput={(e) => paste(valueOf(e))} spellcheck={false} placeholder="paste a JWT" />
          </Field>
          <div class="spread">
            <button type="button" disabled={!session.token} onClick={() => ask(session.token!.text)}>
              That of the connection
            </button>
            <span>
              <button type="button" disabled={!token} onClick={() => session.use(asked)}>
                Use it
              </button>{' '}
              <button class="primary" disabled={!pasted.trim()}>
                Inspect
              </button>
            </span>
          </div>
        </form>
        {wrong && <p class="note bad">{wrong}</p>}
        {token && (
          <>
            {warnings(token).map((text) => (
              <p class="note warn" key={text}>
                {text}
              </p>
            ))}
            <h3>Header</h3>
            <pre tabIndex={0}>{token.header ? JSON.stringify(token.header, null, 2) : 'It cannot be read.'}</pre>
            <h3>Claims</h3>
            <pre tabIndex={0}>{token.claims ? JSON.stringify(token.claims, null, 2) : 'They cannot be read.'}</pre>
            <Times claims={token.claims} />
          </>
        )}
      </Panel>
      <Panel title="Checks" id="checks" aside={found && (found.valid ? <b class="good">valid here</b> : <b class="bad">refused</b>)}>
        {!found ? (
          <p class="empty">Each check that the node makes, in its order.</p>
        ) : (
          <>
            {found.code && <Trouble code={found.code} />}
            <table class="checks">
              <tbody>
                {found.checks.map((c) => (
                  <tr key={c.name} class={c.result}>
                    <td aria-label={c.result}>{marks[c.result]}</td>
                    <th scope="row">
                      <code>{c.name}</code>
                    </th>
                    <td>
                      {(checks as Record<string, string>)[c.name]}
                      {c.detail && <p class="bad">{c.detail}</p>}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
            <h3>Grants</h3>
            <dl>
              <dt>publish</dt>
              <dd>{found.publish?.join(' ') || 'nothing'}</dd>
              <dt>subscribe</dt>
              <dd>{found.subscribe?.join(' ') || 'nothing'}</dd>
            </dl>
            {found.grant_fault && <p class="note bad">{found.grant_fault}</p>}
            <p class="muted">Clients are told the code alone: a forger needs no hints.</p>
          </>
        )}
      </Panel>
    </div>
  )
}

function Times({ claims }: { claims: Record<string, unknown> | undefined }) {
  const rows = ['iat', 'nbf', 'exp'].filter((name) => typeof claims?.[name] === 'number')
  return (
    <dl>
      {rows.map((name) => (
        <>
          <dt>{name}</dt>
          <dd>{new Date((claims![name] as number) * 1000).toLocaleString([], { hour12: false })}</dd>
        </>
      ))}
    </dl>
  )
}
