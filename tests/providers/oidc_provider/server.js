// node-oidc-provider on loopback, for the tests of sign-in and of machines' tokens.
//
// The settings between the marks are those of docs/identity-providers/node-oidc-provider.md. The
// rest is for tests: short-lived tokens, clients and keys that change while it runs, and sessions
// that are revoked. It prints a line with its addresses when it is ready.
import { createServer } from "node:http";

import Provider, { errors } from "oidc-provider";
import { exportJWK, generateKeyPair } from "jose";

const PEOPLE = {
  ada: { organizations: ["org-a"] },
  bob: { organizations: ["org-a", "org-b"], groups: ["analytics-admins"] },
  eve: {},
};
const seconds = { AccessToken: 3600 };

// Everything that is stored, by model and id. It outlives a rotation of keys.
const stored = new Map();
const clients = new Map();

class Store {
  constructor(model) {
    this.model = model;
    if (!stored.has(model)) stored.set(model, new Map());
    this.rows = stored.get(model);
  }

  async upsert(id, payload) {
    this.rows.set(id, payload);
  }

  async find(id) {
    if (this.model === "Client") return clients.get(id);
    const found = this.rows.get(id);
    return found && (!found.exp || found.exp > Date.now() / 1000) ? found : undefined;
  }

  async findByUid(uid) {
    return [...this.rows.values()].find((payload) => payload.uid === uid);
  }

  async consume(id) {
    this.rows.get(id).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.rows.delete(id);
  }

  async revokeByGrantId(grantId) {
    for (const [id, payload] of this.rows) if (payload.grantId === grantId) this.rows.delete(id);
  }
}

const API = "https://analytics.example.com";
const OPAQUE = "https://opaque.example.com";

// Of the page: begin
const settings = {
  claims: { openid: ["sub"], organization: ["organizations", "groups"] },
  async findAccount(ctx, id) {
    const person = PEOPLE[id];
    return person && { accountId: id, claims: async () => ({ sub: id, ...person }) };
  },
  // Without this, a refresh token needs the scope offline_access and prompt=consent.
  async issueRefreshToken(ctx, client) {
    return client.grantTypeAllowed("refresh_token");
  },
  rotateRefreshToken: true,
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      // Machines that send no resource get a token for the API all the same.
      async defaultResource(ctx, client) {
        return client.grantTypeAllowed("client_credentials") ? API : undefined;
      },
      async useGrantedResource() {
        return true;
      },
      async getResourceServerInfo(ctx, resource, client) {
        if (![API, OPAQUE].includes(resource) || !client.grantTypeAllowed("client_credentials")) {
          throw new errors.InvalidTarget();
        }
        const scope = client.clientId === "idp" ? "events:write:any" : "events:write";
        return { scope, audience: resource, accessTokenFormat: resource === API ? "jwt" : "opaque" };
      },
    },
  },
  extraClientMetadata: { properties: ["organization_id"] },
  // Only the tokens of the client itself are of its organization, and never a person's.
  async extraTokenClaims(ctx, token) {
    const id = ctx.oidc.client.organization_id;
    return token.kind === "ClientCredentials" && id ? { organization_id: id } : undefined;
  },
};
// Of the page: end

const machine = (id, more) => ({
  client_id: id,
  client_secret: "a+secret/with%signs",
  grant_types: ["client_credentials"],
  response_types: [],
  redirect_uris: [],
  ...more,
});
for (const client of [
  machine("forwarder", { organization_id: "org-a" }),
  machine("plain"),
  machine("idp"),
  machine("analytics-api", { grant_types: [], organization_id: undefined }),
]) {
  clients.set(client.client_id, client);
}

let handle;
const server = createServer((request, response) => handle(request, response));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
let keys = [];

async function rotate({ forget = false } = {}) {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  const key = { ...(await exportJWK(privateKey)), kid: `key-${Date.now()}`, use: "sig", alg: "RS256" };
  keys = forget ? [key] : [key, ...keys];
  const provider = new Provider(issuer, {
    ...settings,
    adapter: Store,
    jwks: { keys },
    cookies: { keys: ["a secret of the tests"] },
    // By default the provider sends nothing to private addresses, not even a logout token.
    fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
    ttl: {
      AccessToken: () => seconds.AccessToken,
      ClientCredentials: 600,
      Grant: 86400,
      IdToken: 3600,
      Interaction: 600,
      RefreshToken: 86400,
      Session: 86400,
    },
  });
  // The service under test listens on http, like this server.
  provider.on("server_error", (ctx, error) => console.error(error));
  provider.on("backchannel.error", (ctx, error) => console.error(error));
  handle = provider.callback();
}

const commands = {
  client: (metadata) => clients.set(metadata.client_id, metadata),
  rotate,
  // A person's session at the provider ends, with all tokens: as an administrator does it.
  revoke: () => ["Session", "Grant", "RefreshToken", "AccessToken"].forEach((m) => stored.get(m)?.clear()),
  live: (given) => Object.assign(seconds, given),
  count: () => Object.fromEntries([...stored].map(([model, rows]) => [model, rows.size])),
};

const control = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const answer = await commands[request.url.slice(1)](JSON.parse(body));
  response.end(JSON.stringify(answer ?? null));
});
await new Promise((resolve) => control.listen(0, "127.0.0.1", resolve));
await rotate();
console.log(JSON.stringify({ issuer, control: `http://127.0.0.1:${control.address().port}` }));
process.stdin.resume();
process.stdin.on("end", () => process.exit());
