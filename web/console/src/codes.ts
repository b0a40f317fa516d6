import tables from './codes.json'

/** What a code means, and what to do: docs/protocol.md, section 6. */
export interface Explanation {
  meaning: string
  remedy: string
}

export const { errors, closes, checks } = tables

const known = new Map<string, Explanation>([...errors, ...closes].map((row) => [String(row.code), row]))

/** Browsers tell a page so of every handshake that was refused, and of a connection that broke. */
known.set('1006', {
  meaning: 'The connection was lost, or the server refused the handshake. A browser does not tell a page which.',
  remedy: 'Is the server there? If the strategy presents a token, inspect it. If the page is from elsewhere, its origin has to be in origins.',
})

/** The client's own word for a request that nobody answered. */
known.set('UnansweredError', {
  meaning: 'No answer came in time, or the connection was lost before: the request may or may not have been done.',
  remedy: 'Send it again. With a msg_id a durable topic stores an event once, however often it is sent.',
})

export const explain = (code: string | number): Explanation | undefined => known.get(String(code))
