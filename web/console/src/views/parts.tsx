import type { ComponentChildren } from 'preact'
import { explain } from '../codes.js'

/** A section with a heading. */
export function Panel({ title, id, children, aside }: { title: string; id: string; children: ComponentChildren; aside?: ComponentChildren }) {
  return (
    <section class="panel" aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  )
}

/** An error: its code, what the server said, what it means and what to do. */
export function Trouble({ code, message, brief }: { code: string; message?: string | undefined; brief?: boolean }) {
  const known = explain(code)
  return (
    <div class="trouble">
      {code && <code class="bad">{code}</code>}
      {message && <span> {message}</span>}
      {known && !brief && (
        <p>
          <span class="muted">{known.meaning}</span> {known.remedy}
        </p>
      )}
    </div>
  )
}

/** A state as a coloured dot, and as text. */
export function Dot({ kind, children }: { kind: 'good' | 'warn' | 'bad' | 'off'; children: ComponentChildren }) {
  return (
    <span class={`dot ${kind}`}>
      <i aria-hidden="true" />
      {children}
    </span>
  )
}

export function Field({ label, children, hint }: { label: string; children: ComponentChildren; hint?: string }) {
  return (
    <label class="field">
      <span>{label}</span>
      {children}
      {hint && <small>{hint}</small>}
    </label>
  )
}

export const valueOf = (event: { currentTarget: EventTarget | null }) => (event.currentTarget as HTMLInputElement).value
export const submitted = (act: () => void) => (event: { preventDefault(): void }) => {
  event.preventDefault()
  act()
}
