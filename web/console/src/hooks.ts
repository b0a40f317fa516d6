import { createContext } from 'preact'
import { useContext, useEffect, useState } from 'preact/hooks'
import type { Session } from './session.js'

export const SessionContext = createContext<Session>(undefined as never)

/** The session; the view is drawn again when it changes. */
export function useSession(): Session {
  const session = useContext(SessionContext)
  const [, draw] = useState(0)
  useEffect(() => session.listen(() => draw((n) => n + 1)), [session])
  return session
}
