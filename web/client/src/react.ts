'use client'
import { useEffect, useRef, useState } from 'react'
import { Client } from './index.js'
import type { Event, Handler, Options, SubscribeOptions } from './index.js'

/**
 * A client that lives as long as the component; undefined before the first effect, and on a server. It is made anew when
 * the url or the identity changes, such as when another user signs in. The options may be new ones at each rendering: the
 * callbacks of the latest are used, the rest counts when a client is made.
 */
export function useClient(url: string, options: Options, identity?: unknown): Client | undefined {
  const [client, setClient] = useState<Client>()
  const latest = useLatestRef(options)
  useEffect(() => {
    const made = new Client(url, {
      ...latest.current,
      token: (request) => latest.current.token(request),
      onState: (state, error) => latest.current.onState?.(state, error),
      onError: (error) => latest.current.onError?.(error),
      onTransport: (transport, cause) => latest.current.onTransport?.(transport, cause),
    })
    setClient(made)
    return () => {
      setClient(undefined)
      made.close()
    }
  }, [url, identity])
  return client
}

/**
 * Calls handler with each event of a topic or pattern while the component is mounted and there is a client. Returns why it
 * ended, if it did. The options may be new ones at each rendering: the latest `onGap` is called, and `since` counts when the
 * subscription begins.
 */
export function useSubscription<T = any>(client: Client | undefined, pattern: string, handler: Handler<T>, options?: SubscribeOptions): Error | undefined {
  const [error, setError] = useState<Error>()
  const latest = useLatestRef(handler)
  const { since, onGap } = options ?? {}
  const gap = useLatestRef(onGap)
  useEffect(() => {
    let mounted = true
    setError(undefined)
    const subscription = client?.subscribe<T>(
      pattern,
      (event) => latest.current(event),
      (error) => mounted && setError(error),
      { ...(since && { since }), ...(onGap && { onGap: (one) => gap.current?.(one) }) },
    )
    return () => {
      mounted = false
      subscription?.unsubscribe()
    }
  }, [client, pattern])
  return error
}

/** The latest event of a topic or pattern, or undefined while there is none; of a durable topic with `{ since: { last: 1 } }` the one before too. */
export function useLatest<T = any>(client: Client | undefined, pattern: string, options?: SubscribeOptions): Event<T> | undefined {
  const [latest, setLatest] = useState<{ client: Client | undefined; pattern: string; event: Event<T> }>()
  useSubscription<T>(client, pattern, (event) => setLatest({ client, pattern, event }), options)
  return latest?.pattern === pattern && latest.client === client ? latest.event : undefined
}

function useLatestRef<T>(value: T) {
  const latest = useRef(value)
  useEffect(() => {
    latest.current = value
  })
  return latest
}
