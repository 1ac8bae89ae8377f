import type { APIRequestContext, APIResponse } from "@playwright/test";
import { expect, freshEmail, PASSWORD, refused, test } from "./support";

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

test.describe("a kept copy of the token", () => {
  test.use({ expectedFault: refused(401) });

  test("is sent to every server, and refused by each", async ({ visitor, page }) => {
    await visitor.register();
    await page.getByRole("button", { name: "Keep a copy" }).click();
    await visitor.signOut();
    await expect(page).toHaveURL("/replay");
    await page.getByRole("button", { name: "Send the copy" }).click();
    const answers = page.getByRole("table", { name: "Answers to the copy" });
    for (const name of ["a", "b", "c"]) {
      await expect(answers.getByRole("row", { name: new RegExp(`^${name} 401 Unauthorized`) })).toBeVisible();
    }
    await expect(page.getByText(/All 3 servers refuse it, though by its signature/)).toBeVisible();
  });
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

test("the page of the servers shows each one's lease and the last log-outs, without being asked again", async ({ visitor, page, request }) => {
  await visitor.register();
  await page.getByRole("banner").getByRole("link", { name: "Servers" }).click();
  const running = page.getByRole("table", { name: "Running now" });
  for (const name of ["a", "b", "c"]) {
    await expect(running.getByRole("row", { name: new RegExp(`^${name} .*trusted`) })).toBeVisible();
  }
  await expect(running.getByText("answers you")).toHaveCount(1);

  const form = { email: freshEmail(), password: PASSWORD, delivery: "body" };
  const { access_token } = await (await request.post(`${first}/api/auth/register`, { form })).json();
  expect((await request.post(`${second}/api/auth/logout`, withToken(access_token))).status()).toBe(200);
  const ended = page.getByRole("table", { name: "The last log-outs" });
  await expect(ended.getByRole("row", { name: /b 3 of 3 \d+\.\d ms/ }).first()).toBeVisible();
});

test.describe("with a session that is ended on another server", () => {
  test.use({ expectedFault: refused(401) });

  test("the page of the servers turns into a sign-out by itself", async ({ visitor, page, request }) => {
    await visitor.register();
    await visitor.open("/cluster");
    await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
    const bearer = await visitor.bearer();
    expect((await request.post(`${second}/api/auth/logout`, withToken(bearer))).status()).toBe(200);
    await expect(page).toHaveURL("/login?next=/cluster");
    await visitor.expectSignedOut();
  });
});
