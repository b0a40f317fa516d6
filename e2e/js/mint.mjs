// Makes a key for each algorithm with npm jose and signs tokens with it. Input: {"ALG": [claims, …]}; output:
// {"ALG": {"jwk": what a server needs to verify, "tokens": [one for each claims]}}. The key's id is the algorithm.
import { text } from 'node:stream/consumers'
import { SignJWT, exportJWK, generateKeyPair, generateSecret } from 'jose'

const result = {}
for (const [alg, list] of Object.entries(JSON.parse(await text(process.stdin)))) {
  const key = alg.startsWith('HS')
    ? await generateSecret(alg, { extractable: true })
    : await generateKeyPair(alg, { extractable: true })
  const jwk = { ...(await exportJWK(key.publicKey ?? key)), kid: alg, alg, use: 'sig' }
  const tokens = []
  for (const claims of list) {
    tokens.push(
      await new SignJWT(claims)
        .setProtectedHeader({ alg, kid: alg, typ: 'JWT' })
        .setIssuedAt()
        .setExpirationTime('1h')
        .sign(key.privateKey ?? key),
    )
  }
  result[alg] = { jwk, tokens }
}
process.stdout.write(JSON.stringify(result))
