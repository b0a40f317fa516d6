import { useEffect, useRef, useState } from 'preact/hooks'
import { useSession } from '../hooks.js'
import { mostEvents } from '../session.js'
import type { Entry } from '../session.js'
import { clock } from '../token.js'
import { Bars } from './chart.js'
import { Panel, Trouble, valueOf } from './parts.js'

/** The height of a row, in pixels, as style.css has it: only rows in view are drawn. */
const rowHeight = 24

export function Events() {
  const session = useSession()
  const [filter, setFilter] = useState('')
  const [selected, select] = useState<Entry>()
  const wanted = filter.toLowerCase()
  const shown = wanted ? session.events.filter((e) => e.text.includes(wanted)) : session.events
  const rate = session.perSecond.at(-1) ?? 0
  return (
    <Panel
      title="Events"
      id="events"
      aside={
        <span class="rate">
          <Bars values={session.perSecond} label={`events a second, now ${rate}`} />
          <b>{rate}</b>/s <span class="muted">{session.total} in all</span>
        </span>
      }
    >
      <div class="row tools">
        <label class="field">
          <span>Filter</span>
          <input type="search" value={filter} onInput={(e) => setFilter(valueOf(e))} placeholder="part of topic or data" spellcheck={false} />
        </label>
        <button aria-pressed={session.paused} onClick={() => session.setPaused(!session.paused)}>
          {session.paused ? `Go on (${session.held.length} wait)` : 'Pause'}
        </button>
        <button onClick={() => (session.clear(), select(undefined))}>Clear</button>
      </div>
      <Rows entries={shown} selected={selected} select={select} empty={session.events.length > 0 ? 'No event has this in it.' : 'Events appear here.'} />
      <p class="muted count">
        {wanted ? `${shown.length} of ${session.events.length}` : session.events.length} shown; the last {mostEvents.toLocaleString('en')} are kept
      </p>
      {selected && <Detail entry={selected} close={() => select(undefined)} />}
    </Panel>
  )
}

function Rows({ entries, selected, select, empty }: { entries: Entry[]; selected: Entry | undefined; select: (entry: Entry) => void; empty: string }) {
  const box = useRef<HTMLDivElement>(null)
  const [view, setView] = useState({ top: 0, height: 480 })
  const follow = useRef(true)
  const look = () => {
    const b = box.current
    if (!b) return
    follow.current = b.scrollTop + b.clientHeight >= b.scrollHeight - rowHeight
    setView({ top: b.scrollTop, height: b.clientHeight })
  }
  const last = entries.at(-1)?.n
  useEffect(() => {
    const b = box.current
    if (b && follow.current) {
      b.scrollTop = b.scrollHeight
      setView({ top: b.scrollTop, height: b.clientHeight })
    }
  }, [last])
  const at = selected ? entries.indexOf(selected) : -1
  const from = Math.max(0, Math.floor(view.top / rowHeight) - 5)
  const to = Math.min(entries.length, Math.ceil((view.top + view.height) / rowHeight) + 5)
  const move = (to: number) => {
    const entry = entries[Math.min(Math.max(to, 0), entries.length - 1)]
    const b = box.current
    if (!entry || !b) return
    const y = entries.indexOf(entry) * rowHeight
    if (y < b.scrollTop) b.scrollTop = y
    if (y + rowHeight > b.scrollTop + b.clientHeight) b.scrollTop = y + rowHeight - b.clientHeight
    look()
    select(entry)
  }
  const keys: Record<string, () => void> = {
    ArrowDown: () => move(at + 1),
    ArrowUp: () => move(at < 0 ? entries.length - 1 : at - 1),
    PageDown: () => move(at + 15),
    PageUp: () => move(at - 15),
    Home: () => move(0),
    End: () => move(entries.length - 1),
  }
  return (
    <div
      ref={box}
      class="list"
      role="listbox"
      aria-label="Events, the latest last"
      tabIndex={0}
      aria-activedescendant={at >= from && at < to ? `event-${selected!.n}` : undefined}
      onScroll={look}
      onKeyDown={(e) => {
        const act = keys[e.key]
        if (act) {
          e.preventDefault()
          act()
        }
      }}
    >
      <div role="presentation" style={{ height: `${from * rowHeight}px` }} />
      {entries.slice(from, to).map((entry, i) => (
        <div
          key={entry.n}
          id={`event-${entry.n}`}
          class="event"
          role="option"
          aria-selected={entry === selected}
          aria-setsize={entries.length}
          aria-posinset={from + i + 1}
          onClick={() => select(entry)}
        >
          <span class="at muted">{clock(entry.at)}</span>
          <span class="seq">{entry.event.seq ?? ''}</span>
          <b>{entry.event.topic}</b>
          <span>{entry.json}</span>
        </div>
      ))}
      <div role="presentation" style={{ height: `${(entries.length - to) * rowHeight}px` }} />
      {entries.length === 0 && (
        <div role="option" aria-selected="false" aria-disabled="true" class="empty">
          {empty}
        </div>
      )}
    </div>
  )
}

function Detail({ entry: { event, at }, close }: { entry: Entry; close: () => void }) {
  const { data, ...rest } = event
  return (
    <div class="detail" aria-label="The chosen event" role="group">
      <div class="spread">
        <b>{event.topic}</b>
        <span>
          <button onClick={() => void navigator.clipboard.writeText(JSON.stringify(data))}>Copy data</button> <button onClick={close}>Close</button>
        </span>
      </div>
      <dl>
        <dt>received</dt>
        <dd>{clock(at)}</dd>
        {Object.entries(rest)
          .filter(([name]) => name !== 'topic')
          .map(([name, value]) => (
            <>
              <dt>{name}</dt>
              <dd>{String(value)}</dd>
            </>
          ))}
      </dl>
      <pre tabIndex={0}>{JSON.stringify(data, null, 2)}</pre>
    </div>
  )
}

/** What went wrong in the background. */
export function Problems() {
  const session = useSession()
  if (session.problems.length === 0) return null
  return (
    <Panel title="Problems" id="problems">
      <ul class="rows">
        {session.problems.map((p, i) => (
          <li key={p.n}>
            <span class="muted">
              {clock(p.at)} {p.about}
            </span>
            <Trouble code={p.code} message={p.message} brief={i > 0} />
          </li>
        ))}
      </ul>
    </Panel>
  )
}
