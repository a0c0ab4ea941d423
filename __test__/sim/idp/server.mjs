/**
 * An identity provider on loopback: OAuth 2.0 for public clients. People are scripted; the protocol is not: what the RFCs
 * forbid is refused here as they say.
 *
 *     const idp = await startIdp();
 *     await core.login(idp.provider("sim"), { onPrompt: ({ url }) => fetch(url) });   // a browser that consents
 *     await idp.close();
 *
 * RFC 6749 authorization code and refresh; RFC 7636 PKCE, S256 only, verified; RFC 8252 redirects to any loopback port;
 * RFC 8628 device code with its polling interval; RFC 9700, section 4.14.2: a refresh token is good for one use, and the
 * second use ends the whole family of tokens.
 *
 * `log` has one record a token request: { grant, outcome }. `hooks` let a test stand between a request and its answer:
 *   hooks.instead(response) answers in the provider's place
 *   hooks.token(form)       before the request is looked at
 *   hooks.answer(response)  after the tokens are issued, before they are sent; false breaks the connection
 *   hooks.sent()            after they are sent
 */
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";

const MAX_BODY = 64 * 1024;
const unguessable = (prefix) => `${prefix}-${randomBytes(24).toString("base64url")}`;

class OAuthError extends Error {
  constructor(code, status = 400) {
    super(code);
    this.code = code;
    this.status = status;
  }
}

/** Starts a provider on a free port of 127.0.0.1. Times are in seconds, as on the wire. */
export async function startIdp({
  clientId = "sim-client",
  lifetime = 3600,
  interval = 1,
  deviceLifetime = 300,
  email = "user@example.com",
} = {}) {
  /** Access tokens that are valid: token → family. */
  const access = new Map();
  /** Refresh tokens ever issued: token → { family, spent }. */
  const refreshes = new Map();
  /** Sign-ins: family → { alive }. */
  const families = new Map();
  const codes = new Map();
  const devices = new Map();
  const log = [];
  const hooks = {};
  /** What the person does next: "allow", "deny" or, for a device, "wait". */
  const person = { decision: "allow", state: undefined };
  const settings = { lifetime, interval, deviceLifetime };
  let signIns = 0;

  function issue(family) {
    const tokens = { access: unguessable("at"), refresh: unguessable("rt") };
    access.set(tokens.access, family);
    refreshes.set(tokens.refresh, { family, spent: false });
    return tokens;
  }

  function signIn() {
    const family = ++signIns;
    families.set(family, { alive: true });
    return family;
  }

  /** Ends a family: none of its tokens works any more. */
  function revoke(family) {
    families.get(family).alive = false;
    for (const [token, owner] of access) if (owner === family) access.delete(token);
  }

  function body(tokens) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = {
      iss: url,
      aud: clientId,
      sub: "1",
      email,
      iat: Math.floor(Date.now() / 1000),
      exp: Math.floor(Date.now() / 1000) + 600,
    };
    return {
      access_token: tokens.access,
      token_type: "Bearer",
      expires_in: settings.lifetime,
      refresh_token: tokens.refresh,
      id_token: `${part({ alg: "RS256", kid: "sim" })}.${part(claims)}.${part("unsigned")}`,
      scope: "openid email",
    };
  }

  const grants = {
    authorization_code(form) {
      const grant = codes.get(form.get("code"));
      if (!grant) throw new OAuthError("invalid_grant");
      // RFC 6749, 4.1.2: a second use of a code ends what the first one brought.
      if (grant.spent) {
        if (grant.family) revoke(grant.family);
        throw new OAuthError("invalid_grant");
      }
      grant.spent = true;
      if (form.get("redirect_uri") !== grant.redirectUri) throw new OAuthError("invalid_grant");
      const verifier = form.get("code_verifier") ?? "";
      if (!/^[A-Za-z0-9\-._~]{43,128}$/.test(verifier)) throw new OAuthError("invalid_request");
      if (createHash("sha256").update(verifier).digest("base64url") !== grant.challenge)
        throw new OAuthError("invalid_grant");
      grant.family = signIn();
      return issue(grant.family);
    },
    refresh_token(form) {
      const grant = refreshes.get(form.get("refresh_token"));
      if (!grant) throw new OAuthError("invalid_grant");
      if (grant.spent) {
        revoke(grant.family);
        throw new OAuthError("invalid_grant");
      }
      if (!families.get(grant.family).alive) throw new OAuthError("invalid_grant");
      grant.spent = true;
      return issue(grant.family);
    },
    "urn:ietf:params:oauth:grant-type:device_code"(form) {
      const grant = devices.get(form.get("device_code"));
      if (!grant || grant.spent) throw new OAuthError("invalid_grant");
      const now = performance.now();
      const early = grant.polled !== undefined && now - grant.polled < grant.interval * 1000 - 20;
      grant.polled = now;
      grant.polls++;
      if (now > grant.until) throw new OAuthError("expired_token");
      if (early || grant.slowDowns > 0) {
        grant.slowDowns = Math.max(0, grant.slowDowns - 1);
        grant.tooEarly += early ? 1 : 0;
        grant.interval += 5;
        throw new OAuthError("slow_down");
      }
      if (grant.polls <= grant.pending || person.decision === "wait")
        throw new OAuthError("authorization_pending");
      if (person.decision === "deny") throw new OAuthError("access_denied");
      grant.spent = true;
      return issue(signIn());
    },
  };

  /** A form, each of whose parameters comes once (RFC 6749, 3.2). */
  async function readForm(request) {
    if (request.method !== "POST") throw new OAuthError("invalid_request", 405);
    if (!/^application\/x-www-form-urlencoded\b/.test(request.headers["content-type"] ?? ""))
      throw new OAuthError("invalid_request");
    let text = "";
    for await (const chunk of request) {
      text += chunk;
      if (text.length > MAX_BODY) throw new OAuthError("invalid_request", 413);
    }
    const form = new URLSearchParams(text);
    if ([...form.keys()].length !== new Set(form.keys()).size) throw new OAuthError("invalid_request");
    if (form.get("client_id") !== clientId) throw new OAuthError("invalid_client", 401);
    return form;
  }

  const endpoints = {
    async "/token"(request, response) {
      const form = await readForm(request);
      const record = { grant: form.get("grant_type"), outcome: "broken off" };
      log.push(record);
      if (hooks.instead) return hooks.instead(response);
      await hooks.token?.(form);
      try {
        const grant = grants[record.grant];
        if (!grant) throw new OAuthError("unsupported_grant_type");
        const tokens = grant(form);
        record.outcome = "ok";
        if ((await hooks.answer?.(response)) === false) {
          response.destroy();
          return;
        }
        send(response, 200, body(tokens));
        response.once("finish", () => hooks.sent?.());
      } catch (error) {
        record.outcome = error.code ?? error.message;
        throw error;
      }
    },
    async "/device"(request, response) {
      await readForm(request);
      const code = unguessable("dc");
      const userCode = randomBytes(4).toString("hex").toUpperCase();
      devices.set(code, {
        interval: settings.interval,
        until: performance.now() + settings.deviceLifetime * 1000,
        polls: 0,
        pending: settings.pending ?? 1,
        slowDowns: settings.slowDowns ?? 0,
        tooEarly: 0,
        spent: false,
      });
      send(response, 200, {
        device_code: code,
        user_code: settings.userCode ?? userCode,
        verification_uri: settings.verificationUri ?? `${url}/activate`,
        expires_in: settings.deviceLifetime,
        interval: settings.interval,
      });
    },
    async "/authorize"(request, response) {
      const query = new URL(request.url, url).searchParams;
      const redirect = URL.parse(query.get("redirect_uri") ?? "");
      // RFC 6749, 4.1.2.1: with these wrong, nobody is sent anywhere. RFC 8252, 7.3: the port is free.
      if (
        query.get("client_id") !== clientId ||
        !redirect ||
        !["127.0.0.1", "localhost"].includes(redirect.hostname)
      )
        throw new OAuthError("invalid_request");
      const state = query.get("state");
      const back = (parameters) => {
        for (const [name, value] of Object.entries(parameters)) redirect.searchParams.set(name, value);
        const given = person.state ?? state;
        if (given) redirect.searchParams.set("state", given);
        response.writeHead(302, { location: redirect.href }).end();
      };
      if (query.get("response_type") !== "code") return back({ error: "unsupported_response_type" });
      const challenge = query.get("code_challenge") ?? "";
      if (query.get("code_challenge_method") !== "S256" || !/^[A-Za-z0-9_-]{43}$/.test(challenge))
        return back({ error: "invalid_request" });
      if (person.decision === "deny") return back({ error: "access_denied" });
      const code = unguessable("code");
      codes.set(code, { challenge, redirectUri: query.get("redirect_uri"), spent: false });
      back({ code });
    },
  };

  function send(response, status, value) {
    response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
    response.end(JSON.stringify(value));
  }

  const traffic = { connections: 0, requests: 0 };
  const server = createServer((request, response) => {
    traffic.requests++;
    const endpoint = endpoints[request.url.split("?")[0]];
    Promise.resolve(endpoint ? endpoint(request, response) : send(response, 404, {})).catch((error) => {
      if (error instanceof OAuthError) {
        // A careless server: its words hold what it was sent, and must reach nobody's log.
        send(response, error.status, {
          error: error.code,
          error_description: `canary ${[...refreshes.keys()].at(-1) ?? ""} ${[...access.keys()].at(-1) ?? ""}`,
        });
      } else {
        response.destroy();
      }
    });
  });
  server.on("connection", () => traffic.connections++);
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    clientId,
    log,
    hooks,
    person,
    settings,
    devices,
    refreshes,
    /** What came until now: { connections, requests }. */
    traffic,
    /** How a client is told of this provider. */
    provider: (id = "sim", more = {}) => ({
      id,
      clientId,
      authorizeUrl: `${url}/authorize`,
      tokenUrl: `${url}/token`,
      deviceUrl: `${url}/device`,
      scopes: ["openid", "email"],
      ...more,
    }),
    /** Tokens as after a sign-in. */
    grant: () => issue(signIn()),
    /** Whether a resource server would take it. */
    accepts: (token) => access.has(token),
    /** Every token ever issued, and nothing else. */
    secrets: () => [...refreshes.keys(), ...access.keys(), ...codes.keys(), ...devices.keys()],
    outcomes: (grant = "refresh_token") =>
      log.filter((record) => record.grant === grant).map((record) => record.outcome),
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}
