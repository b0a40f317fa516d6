// A backend that publishes with a client made from the OpenAPI document. The compiler checks what it sends and reads.
import createClient from 'openapi-fetch'
import type { components, paths } from './schema.js'

type Code = components['schemas']['Code'] | 'ok'

export async function run(baseUrl: string, token: string): Promise<Record<string, Code | undefined>> {
  const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } })
  const publish = async (topic: string): Promise<Code | undefined> => {
    const { data, error } = await client.POST('/v1/publish', { body: { topic, data: { text: 'hello' } } })
    return data ? 'ok' : error?.code
  }
  const stranger = createClient<paths>({ baseUrl })
  const refused = await stranger.POST('/v1/publish', { body: { topic: 'rooms.42', data: 1 } })
  const ticket = await client.POST('/v1/tickets')
  const revoked = await client.POST('/v1/revocations', { body: { jti: 'x' } })
  return {
    published: await publish('rooms.42'),
    wildcard: await publish('rooms.*'),
    elsewhere: await publish('elsewhere'),
    stranger: refused.error?.code,
    ticket: (ticket.data?.expires_in ?? 0) > 0 && ticket.data?.ticket ? 'ok' : ticket.error?.code,
    revoked: revoked.error?.code,
  }
}
