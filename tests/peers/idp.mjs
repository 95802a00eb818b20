// An OpenID provider by other people: `oidc-provider` (npm, certified) with one workload and one person, on loopback.
// `second_issuer.py` drives it. Everything secret in here is public.
//
// Ready, it prints {"ready": true, "issuer": URL}. At SIGHUP it makes a new signing key, keeps the old one published, and
// prints {"kid": ID}. The library fixes its keys when it is built, so a new provider takes the old one's place.
import http from 'node:http';
import { once } from 'node:events';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const AUDIENCE = 'stepgate';
// The provider wants resources to be URIs; the audience in the token is ours to name.
const RESOURCE = 'urn:stepgate';
const REDIRECT = 'http://127.0.0.1:4499/callback';
const WORKLOAD = { token_kind: 'workload', tenant: 't1' };
// Alice's tokens carry the workload's mark as well, as an issuer does that gives it to everyone.
const PERSON = { ...WORKLOAD, email: 'alice@example.test' };

const server = http.createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

let answer;
const keys = [];
await rotate('RS256');
console.log(JSON.stringify({ ready: true, issuer }));
process.on('SIGHUP', async () => console.log(JSON.stringify({ kid: await rotate('ES256') })));

async function rotate(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  const kid = `key-${keys.length + 1}`;
  keys.unshift({ ...(await exportJWK(privateKey)), kid, alg, use: 'sig' });
  answer = provider(alg, kid).callback();
  return kid;
}

function provider(alg, kid) {
  return new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: ['not a secret'] },
    clientDefaults: { id_token_signed_response_alg: alg },
    clients: [
      {
        client_id: 'worker', client_secret: 'open-secret',
        grant_types: ['client_credentials'], response_types: [], redirect_uris: [],
      },
      {
        client_id: 'console', token_endpoint_auth_method: 'none', application_type: 'native',
        grant_types: ['authorization_code'], response_types: ['code'], redirect_uris: [REDIRECT],
      },
    ],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_, token) => (token.kind === 'ClientCredentials' ? WORKLOAD : PERSON),
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: 'orders', audience: AUDIENCE, accessTokenFormat: 'jwt', jwt: { sign: { alg, kid } },
        }),
      },
    },
  });
}
