import type { APIRequestContext, APIResponse } from "@playwright/test";
import { expect, freshEmail, PASSWORD, test } from "./support";

/** The instances by their own addresses, past the proxy. */
const instances = ["A", "B", "C"].map((name) => `http://127.0.0.1:${process.env[`CLUSTER_${name}`]}`);
const [first, second] = instances;

const withToken = (token: string | null) => ({ headers: { Authorization: `Bearer ${token}` } });

async function askEach(request: APIRequestContext, token: string | null): Promise<APIResponse[]> {
  return Promise.all(instances.map((url) => request.post(`${url}/api/account/me`, withToken(token))));
}

async function expectAcceptedByEach(request: APIRequestContext, token: string | null) {
  for (const answer of await askEach(request, token)) expect(answer.status(), answer.url()).toBe(200);
}

async function expectRefusedByEach(request: APIRequestContext, token: string | null) {
  for (const answer of await askEach(request, token)) {
    expect(answer.status(), answer.url()).toBe(401);
    expect(answer.headers()["www-authenticate"]).toBe('Bearer error="invalid_token"');
  }
}

test("a copy of the token is dead on every server once the page has logged out", async ({ visitor, page, request }) => {
  const email = await visitor.register();
  await visitor.signOut();
  await visitor.expectSignedOut();
  await visitor.signIn(email);
  await visitor.expectAccountOf(email);

  const bearer = await visitor.bearer();
  await expectAcceptedByEach(request, bearer);

  await visitor.signOut();
  await expect(page.getByText(/Your token died on all 3 servers in (\d+ ms|less than a millisecond)\./)).toBeVisible();
  await visitor.expectSignedOut();
  await expectRefusedByEach(request, bearer);
});

test("a session that one server began is known to all at once, and ended by another is over for all", async ({ request }) => {
  const form = { email: freshEmail(), password: PASSWORD, delivery: "body" };
  const begun = await request.post(`${first}/api/auth/register`, { form });
  expect(begun.status()).toBe(200);
  const { access_token, refresh_token } = await begun.json();
  await expectAcceptedByEach(request, access_token);

  const ended = await request.post(`${second}/api/auth/logout`, withToken(access_token));
  expect(ended.status()).toBe(200);
  expect(await ended.json()).toMatchObject({ instances: 3 });
  await expectRefusedByEach(request, access_token);
  for (const url of instances) {
    const renewed = await request.post(`${url}/api/auth/refresh`, { form: { refresh_token } });
    expect(renewed.status(), url).toBe(401);
  }
});
