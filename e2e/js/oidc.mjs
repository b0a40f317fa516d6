// An OpenID provider on loopback (npm oidc-provider) whose signing keys change. It issues JWT access
// tokens (RFC 9068) for the client credentials grant. A line of standard input, {"keys":["a","b"]}, says which keys it
// publishes from then on; it signs with the first. A line of output is {"issuer":…}, {"keys":[…]} when that is so, or
// {"asked":[…]}: somebody asks for the JWK Set, which has these keys now.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const [alg, audience, claims] = process.argv.slice(2)
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const made = {}

async function key(kid) {
  made[kid] ??= { ...(await exportJWK((await generateKeyPair(alg, { extractable: true })).privateKey)), kid, alg, use: 'sig' }
  return made[kid]
}

async function provider(issuer, kids) {
  return new Provider(issuer, {
    jwks: { keys: await Promise.all(kids.map(key)) },
    clients: [{
      client_id: 'backend',
      client_secret: 'loopback only',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }],
    enabledJWA: { idTokenSigningAlgValues: [alg] },
    clientDefaults: { id_token_signed_response_alg: alg },
    ttl: { ClientCredentials: 600 },
    extraTokenClaims: () => JSON.parse(claims),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        defaultResource: () => audience,
        getResourceServerInfo: () => ({ scope: '', audience, accessTokenFormat: 'jwt', jwt: { sign: { alg } } }),
      },
    },
  })
}

const server = createServer().listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  let keys = ['first']
  let handle = (await provider(issuer, keys)).callback()
  server.on('request', (request, response) => {
    if (request.url === '/jwks') say({ asked: keys })
    handle(request, response)
  })
  say({ issuer })
  for await (const line of createInterface({ input: process.stdin })) {
    const next = JSON.parse(line).keys
    handle = (await provider(issuer, next)).callback()
    keys = next
    say({ keys })
  }
  process.exit(0)
})
