import type { Backoff } from './backoff.js'
import type { Socket } from './connection.js'
import type { DurableTopics } from './durable.js'
import type { ServerSentEvents } from './sse.js'

/** What a token is wanted for. */
export interface TokenRequest {
  /** `connect` where the connection itself has a credential (see {@link Options.strategy}). */
  action: 'publish' | 'subscribe' | 'connect'
  /** The topic, or the pattern of a subscription; none for `connect`. */
  topic?: string
  /** What will be published, for a token that is bound to it (`notify.digest`): its JSON text. */
  data?: string
}

/**
 * Gives a token (a JWT). It is asked for each publish, subscribe, connection and refresh, so that it should remember a
 * token until shortly before that expires. When it throws, a publish is rejected, and all else is tried again.
 */
export type TokenProvider = (request: TokenRequest) => string | Promise<string>

/**
 * How the connection itself gets a credential, besides the token of each publish: `message`, the default, is none, and
 * each subscribe carries its own token. The operator decides which are enabled.
 */
export type Strategy = 'message' | 'first-message' | 'subprotocol' | 'ticket'

/** Where a client stands. `closed` is the last. */
export type State = 'connecting' | 'connected' | 'waiting' | 'closed'

export type Transport = 'websocket' | 'sse'

/** A WebSocket, or what looks like one. */
export interface SocketClass {
  new (url: string, protocols: string[]): Socket
  /** Whether it sends requests with the token in a header. */
  readonly http?: boolean
}

export interface Options {
  token: TokenProvider
  strategy?: Strategy
  /** Called at each change of state, with the error that led to it, if any. */
  onState?: (state: State, error?: Error) => void
  /** Called with what happens in the background and ends nothing: a refresh that failed, a handler that threw. */
  onError?: (error: Error) => void
  /** How long to wait for the handshake, and for the answer to a request, in milliseconds. Default 10,000. */
  timeout?: number
  /** Bounds of the pause before the next attempt, in milliseconds. Default 250 and 30,000. */
  backoff?: Partial<Backoff>
  /** Events that wait for the consumer of an iterator; the oldest are dropped and reported. Default 1,000. */
  buffer?: number
  /** That of `@notifyd/client/durable`: subscriptions to durable topics go on from their position. */
  durable?: DurableTopics
  /** That of `@notifyd/client/sse`: where a WebSocket cannot be opened, events come as Server-Sent Events. */
  sse?: ServerSentEvents
  /** What sse chooses from. Default `auto`: a WebSocket, as long as one can be opened. */
  transport?: 'auto' | Transport
  /** With sse: called when the client takes another transport, with what became of the one before. */
  onTransport?: (transport: Transport, cause: Error) => void
  /** The class of sockets. Default: the global WebSocket; Node 20 has none, pass that of npm `ws`. */
  WebSocket?: SocketClass
}
