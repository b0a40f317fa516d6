import { useEffect, useRef, useState } from 'react'
import type { Client, Event, Handler } from './index.js'

/** Calls handler with each event of a topic or pattern while the component is mounted. Returns why it ended, if it did. */
export function useSubscription<T = any>(client: Client, pattern: string, handler: Handler<T>): Error | undefined {
  const [error, setError] = useState<Error>()
  const latest = useRef(handler)
  useEffect(() => {
    latest.current = handler
  })
  useEffect(() => {
    setError(undefined)
    return client.subscribe<T>(pattern, (event) => latest.current(event), setError).unsubscribe
  }, [client, pattern])
  return error
}

/** The latest event of a topic or pattern, or undefined while there is none. */
export function useLatest<T = any>(client: Client, pattern: string): Event<T> | undefined {
  const [latest, setLatest] = useState<{ pattern: string; event: Event<T> }>()
  useSubscription<T>(client, pattern, (event) => setLatest({ pattern, event }))
  return latest?.pattern === pattern ? latest.event : undefined
}
