/** What a frame says, as far as the page reads along. */
export interface Frame {
  type: string
  id?: string
  topic?: string
  token?: string
  code?: string
  message?: string
  exp?: number
  seq?: number
  within?: number
}

export interface Listener {
  /** A frame came. asked is the request that it answers. */
  came(frame: Frame, asked: Frame | undefined): void
  /** How long a ping was under way, in milliseconds. */
  pinged(ms: number): void
}

/** Ids of our own pings; those of the client are numbers. */
const ping = 'ping-'

/** How often this page asks for a sign of life, to know how long it takes. */
const pingInterval = 1000

const isBearer = (protocol: string) => protocol.startsWith('bearer.')

/** The address with the token that stands among the protocols. */
function inQuery(url: string, protocols: string[]): string {
  const address = new URL(url)
  address.searchParams.set('access_token', protocols.find(isBearer)?.slice('bearer.'.length) ?? '')
  return address.href
}

/**
 * The class of sockets for a client whose frames listener wants to know. With query the token is put into the address, as the
 * strategy of that name has it, instead of into the subprotocol.
 */
export function tapped(listener: Listener, query: boolean) {
  return class Tap extends WebSocket {
    readonly #asked = new Map<string, Frame>()
    readonly #pings = new Map<string, number>()

    constructor(url: string, protocols: string[]) {
      super(query ? inQuery(url, protocols) : url, query ? protocols.filter((p) => !isBearer(p)) : protocols)
      let count = 0
      const timer = setInterval(() => {
        if (this.readyState !== WebSocket.OPEN) return
        const id = `${ping}${++count}`
        this.#pings.set(id, performance.now())
        super.send(JSON.stringify({ type: 'ping', id }))
      }, pingInterval)
      this.addEventListener('close', () => clearInterval(timer))
      this.addEventListener('message', (event) => {
        if (this.#read(event.data as string)) event.stopImmediatePropagation()
      })
    }

    override send(data: string): void {
      const { type, id, topic, token } = JSON.parse(data) as Frame
      if (id) this.#asked.set(id, { type, ...(topic && { topic }), ...(token && { token }) })
      super.send(data)
    }

    /** It reports whether the frame is ours alone. */
    #read(data: string): boolean {
      const frame = JSON.parse(data) as Frame
      const began = this.#pings.get(frame.id ?? '')
      if (began !== undefined) {
        this.#pings.delete(frame.id!)
        listener.pinged(performance.now() - began)
        return true
      }
      const asked = this.#asked.get(frame.id ?? '')
      if (asked) this.#asked.delete(frame.id!)
      if (frame.type !== 'event') listener.came(frame, asked)
      return false
    }
  }
}
