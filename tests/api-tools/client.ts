/** Logs in and out with openapi-fetch and the types that openapi-typescript has generated from the OpenAPI document. */
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

type Tokens = components["schemas"]["TokenResponse"];

const { BASE, EMAIL, PASSWORD } = process.env as Record<string, string>;
const client = createClient<paths>({ baseUrl: BASE });

const bearer = ({ access_token }: Tokens) => ({ headers: { Authorization: `Bearer ${access_token}` } });
const me = (tokens: Tokens) => client.POST("/api/account/me", bearer(tokens));

const wrong = await client.POST("/api/auth/login", { body: { email: EMAIL, password: "wrong password" } });
assert.equal(wrong.error?.error, "invalid_grant");

const login = await client.POST("/api/auth/login", { body: { email: EMAIL, password: PASSWORD, delivery: "body" } });
assert(login.data);
const first = login.data;
assert.equal((await me(first)).data?.email, EMAIL);

const refresh = await client.POST("/api/auth/refresh", { body: { refresh_token: first.refresh_token } });
assert(refresh.data);
const second = refresh.data;
assert.equal(second.session_id, first.session_id);
assert.equal((await me(second)).data?.sid, first.session_id);

const logout = await client.POST("/api/auth/logout", bearer(second));
assert(logout.data);
assert.equal(logout.data.acknowledged, logout.data.instances);
for (const tokens of [first, second]) {
  assert.equal((await me(tokens)).error?.error, "invalid_token");
}
console.log("The TypeScript client has logged in and out.");
