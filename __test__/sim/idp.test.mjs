// The identity provider as a certified OAuth client sees it: that client decides whether it speaks as the RFCs say.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { startIdp } from "./idp/server.mjs";

const require = createRequire(new URL("./idp/package.json", import.meta.url));
const oauth = await import(require.resolve("oauth4webapi"));

let idp;
let as;
const client = { client_id: "sim-client" };
const insecure = { [oauth.allowInsecureRequests]: true };
const none = oauth.None();
before(async () => {
  idp = await startIdp();
  as = {
    issuer: idp.url,
    authorization_endpoint: `${idp.url}/authorize`,
    token_endpoint: `${idp.url}/token`,
    device_authorization_endpoint: `${idp.url}/device`,
  };
});
after(() => idp.close());

const redirect = "http://127.0.0.1:49152/callback";

async function authorize({ verifier, challenge, method = "S256", state = oauth.generateRandomState() }) {
  const url = new URL(as.authorization_endpoint);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: client.client_id,
    redirect_uri: redirect,
    scope: "openid email",
    state,
    code_challenge: challenge ?? (await oauth.calculatePKCECodeChallenge(verifier)),
    code_challenge_method: method,
  });
  const response = await fetch(url, { redirect: "manual" });
  assert.equal(response.status, 302);
  return { location: new URL(response.headers.get("location")), state };
}

const exchange = (parameters, verifier) =>
  oauth.authorizationCodeGrantRequest(as, client, none, parameters, redirect, verifier, insecure);

async function signIn() {
  const verifier = oauth.generateRandomCodeVerifier();
  const { location, state } = await authorize({ verifier });
  const parameters = oauth.validateAuthResponse(as, client, location, state);
  const response = await exchange(parameters, verifier);
  return { tokens: await oauth.processAuthorizationCodeResponse(as, client, response), parameters, verifier };
}

async function refresh(token) {
  const response = await oauth.refreshTokenGrantRequest(as, client, none, token, insecure);
  return oauth.processRefreshTokenResponse(as, client, response);
}

const refusal = (code) => (error) => error instanceof oauth.ResponseBodyError && error.error === code;

test("a client signs in with a code and PKCE, and the id token says who", async () => {
  const { tokens } = await signIn();
  assert.ok(idp.accepts(tokens.access_token));
  assert.equal(oauth.getValidatedIdTokenClaims(tokens).email, "user@example.com");
});

test("a code is refused with another verifier, and with the challenge as verifier", async () => {
  for (const wrong of [oauth.generateRandomCodeVerifier, oauth.calculatePKCECodeChallenge]) {
    const verifier = oauth.generateRandomCodeVerifier();
    const { location, state } = await authorize({ verifier });
    const parameters = oauth.validateAuthResponse(as, client, location, state);
    const response = await exchange(parameters, await wrong(verifier));
    await assert.rejects(
      oauth.processAuthorizationCodeResponse(as, client, response),
      refusal("invalid_grant"),
    );
  }
});

test("the method `plain` is refused", async () => {
  const verifier = oauth.generateRandomCodeVerifier();
  const { location, state } = await authorize({ challenge: verifier, method: "plain" });
  assert.throws(
    () => oauth.validateAuthResponse(as, client, location, state),
    (error) => error instanceof oauth.AuthorizationResponseError && error.error === "invalid_request",
  );
});

test("a code that comes twice ends the sign-in it brought", async () => {
  const { tokens, parameters, verifier } = await signIn();
  const response = await exchange(parameters, verifier);
  await assert.rejects(
    oauth.processAuthorizationCodeResponse(as, client, response),
    refusal("invalid_grant"),
  );
  assert.ok(!idp.accepts(tokens.access_token));
});

test("a refresh token is good once, and its second use ends the whole sign-in", async () => {
  const { tokens } = await signIn();
  const second = await refresh(tokens.refresh_token);
  assert.ok(idp.accepts(second.access_token));
  await assert.rejects(refresh(tokens.refresh_token), refusal("invalid_grant"));
  assert.ok(!idp.accepts(second.access_token));
  await assert.rejects(refresh(second.refresh_token), refusal("invalid_grant"));
});

test("a device that asks too often is told to slow down, and gets its tokens once the person agrees", async () => {
  const started = await oauth.deviceAuthorizationRequest(as, client, none, { scope: "openid" }, insecure);
  const device = await oauth.processDeviceAuthorizationResponse(as, client, started);
  const poll = async () => {
    const response = await oauth.deviceCodeGrantRequest(as, client, none, device.device_code, insecure);
    return oauth.processDeviceCodeResponse(as, client, response);
  };
  await assert.rejects(poll(), refusal("authorization_pending"));
  await assert.rejects(poll(), refusal("slow_down"));
  const grant = idp.devices.get(device.device_code);
  assert.equal(grant.interval, 6);
  // The rest of the wait.
  grant.polled -= 6000;
  assert.ok(idp.accepts((await poll()).access_token));
  await assert.rejects(poll(), refusal("invalid_grant"));
});

test("a refresh by another client, or with a parameter twice, is refused", async () => {
  const { refresh } = idp.grant();
  const post = (body) =>
    fetch(`${idp.url}/token`, { method: "POST", body: new URLSearchParams(body) }).then((r) => r.json());
  const form = { grant_type: "refresh_token", refresh_token: refresh };
  assert.equal((await post({ ...form, client_id: "other" })).error, "invalid_client");
  const twice = [...Object.entries({ ...form, client_id: "sim-client" }), ["refresh_token", refresh]];
  assert.equal((await post(twice)).error, "invalid_request");
  assert.ok((await post({ ...form, client_id: "sim-client" })).access_token);
});
