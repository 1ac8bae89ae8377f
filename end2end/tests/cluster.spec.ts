import { readFileSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import type { APIRequestContext, APIResponse, Page } from "@playwright/test";
import { CLUSTER, linkIn } from "./mailbox";
import { expect, expectNoViolations, freshEmail, PASSWORD, refused, test } from "./support";

// One after the other: some of them stop a server.
test.describe.configure({ mode: "default" });

/** The instances by their own addresses, past the proxy. */
const instances = ["A", "B", "C"].map((name) => `http://127.0.0.1:${process.env[`CLUSTER_${name}`]}`);
const [first, second] = instances;

/** What a logout waits for: the instances, the gate, and the guard of the notes service. */
const members = ["a", "b", "c", "gate", "notes"];

/** The notes service: at the site's proxy with its guard alone, and behind a proxy that asks the gate first. */
const notes = [`http://127.0.0.1:${process.env.CLUSTER_PORT}/notes`, `http://127.0.0.1:${process.env.CLUSTER_GATED}/notes`];

/** The proxies that `deploy/haproxy.cfg` and `deploy/nginx.conf` configure, in front of the same instances. */
const proxies = [
  ["HAProxy", `http://127.0.0.1:${process.env.CLUSTER_PORT}`],
  ["nginx", `http://127.0.0.1:${process.env.CLUSTER_NGINX}`],
];

const withToken = (token: string | null) => ({ headers: { Authorization: `Bearer ${token}` } });

/** Someone else signs in at the first server and out at this one. */
async function logOutElsewhere(request: APIRequestContext, at: string) {
  const form = { email: freshEmail(), password: PASSWORD, delivery: "body" };
  const { access_token } = await (await request.post(`${first}/api/auth/register`, { form })).json();
  expect((await request.post(`${at}/api/auth/logout`, withToken(access_token))).status()).toBe(200);
}

/** The status of a request for this target, which is sent as it is: other clients normalize it first. */
async function statusOf(proxy: string, target: string): Promise<number> {
  const { hostname, port } = new URL(proxy);
  return new Promise((resolve, reject) => {
    get({ hostname, port, path: target }, (answer) => resolve(answer.resume().statusCode!)).once("error", reject);
  });
}

/** Stops the process, as an overloaded or paused machine would. */
async function whileStopped(name: string, then: () => Promise<void>) {
  const pid = Number(readFileSync(join(process.env.CLUSTER_PIDS!, name), "utf8"));
  process.kill(pid, "SIGSTOP");
  try {
    await then();
  } finally {
    process.kill(pid, "SIGCONT");
  }
}

/** The page of the servers. */
class Servers {
  readonly running;
  readonly ended;
  readonly nodes;
  readonly words;

  constructor(readonly page: Page) {
    this.running = page.getByRole("table", { name: "Running now" });
    this.ended = page.getByRole("table", { name: "Recent revocations" });
    this.nodes = page.locator(".picture .node");
    this.words = page.locator("[role=status].standing");
  }

  node(name: string) {
    return this.nodes.filter({ has: this.page.locator(".name", { hasText: new RegExp(`^${name}$`) }) });
  }

  async expectAllInLease() {
    for (const name of members) await expect(this.node(name).locator(".lease")).toHaveText("lease held");
    await expect(this.nodes).toHaveCount(members.length);
  }

  /** Who answers this page, and the others. */
  async askWhoAnswers(): Promise<[string, string, string]> {
    const names = ["a", "b", "c"];
    const row = await this.running.getByRole("row").filter({ hasText: "serves this page" }).innerText();
    const answering = names.find((name) => row.startsWith(name))!;
    const [one, other] = names.filter((name) => name !== answering);
    return [answering, one, other];
  }

  /** What the picture says of each, and what the table does, at the same moment. */
  async read() {
    return this.page.evaluate(() => {
      const text = (of: Element, what: string) => of.querySelector(what)?.textContent?.trim();
      const sessions = (count?: string) => (count === "1" ? "1 session" : `${count} sessions`);
      const picture = [...document.querySelectorAll(".picture .node")].map((node) => [
        text(node, ".name"),
        text(node, ".you") === "you" ? "serves this page" : (text(node, ".you") ?? ""),
        text(node, ".lease"),
        text(node, ".memory"),
      ]);
      const table = [...document.querySelectorAll(".servers tbody tr")].map((row) => [
        row.querySelector("th")!.firstChild!.textContent,
        text(row, ".hint") ?? "",
        text(row, "td:nth-of-type(1)"),
        text(row, "td:nth-of-type(1)") === "lease held" ? sessions(text(row, "td:nth-of-type(4)")) : text(row, ".badge"),
      ]);
      const told = document.querySelector(".picture desc")!.textContent;
      return { picture: picture.sort(), table: table.sort(), told };
    });
  }

  async expectTableEqualsPicture() {
    const { picture, table, told } = await this.read();
    expect(picture).toEqual(table);
    for (const [name, , lease] of table) expect(told).toMatch(new RegExp(`${name}(, a gate|, a guard)?: ${lease}`));
  }
}

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
  await expect(page.getByText(/Your token was revoked on all 5 servers in (\d+ ms|less than a millisecond)\./)).toBeVisible();
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
    const answers = page.getByRole("table", { name: "Responses to the copy" });
    for (const name of ["a", "b", "c"]) {
      await expect(answers.getByRole("row", { name: new RegExp(`^${name} 401 Unauthorized`) })).toBeVisible();
    }
    await expect(answers.getByRole("row", { name: /^notes \(another service\) 401 Unauthorized/ })).toBeVisible();
    await expect(page.getByText(/All 3 servers and the service notes refuse it, though its signature/)).toBeVisible();
  });
});

test("another service accepts the token, and refuses it once the page has logged out", async ({ visitor, page, request }) => {
  await visitor.register();
  await page.getByRole("button", { name: "Call the API" }).click();
  await expect(page.getByText(/from server [abc] in/)).toBeVisible();
  await expect(page.getByText(/from notes, another service, in/)).toBeVisible();
  await expect(page.getByText("200 OK", { exact: true })).toHaveCount(2);
  await page.getByText("Request and response").last().click();
  await expect(page.getByRole("group", { name: "Request" }).last()).toContainText("GET /notes");

  const bearer = await visitor.bearer();
  const text = "Buy milk";
  for (const url of notes) expect((await request.post(url, { ...withToken(bearer), data: text })).status(), url).toBe(201);
  for (const url of notes) expect(await (await request.get(url, withToken(bearer))).json(), url).toEqual([text, text]);
  await visitor.signOut();
  await visitor.expectSignedOut();
  for (const url of notes) {
    const refused = await request.get(url, withToken(bearer));
    expect(refused.status(), url).toBe(401);
    expect(refused.headers()["www-authenticate"], url).toBe('Bearer error="invalid_token"');
  }
});

test("a session that one server began is known to all at once, and ended by another is over for all", async ({ request }) => {
  const form = { email: freshEmail(), password: PASSWORD, delivery: "body" };
  const begun = await request.post(`${first}/api/auth/register`, { form });
  expect(begun.status()).toBe(200);
  const { access_token, refresh_token } = await begun.json();
  await expectAcceptedByEach(request, access_token);

  const ended = await request.post(`${second}/api/auth/logout`, withToken(access_token));
  expect(ended.status()).toBe(200);
  expect(await ended.json()).toMatchObject({ instances: members.length });
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
    await expect(running.getByRole("row", { name: new RegExp(`^${name} .*in memory`) })).toBeVisible();
  }
  await expect(running.getByText("serves this page")).toHaveCount(1);

  const ended = page.getByRole("table", { name: "Recent revocations" });
  const confirmed = ended.getByRole("row", { name: /b 5 of 5 \d+\.\d ms/ });
  const before = await confirmed.count();
  // An instance that gets no processor for a second confirms nothing.
  await expect(async () => {
    await logOutElsewhere(request, second);
    await expect.poll(() => confirmed.count(), { timeout: 10_000 }).toBeGreaterThan(before);
  }).toPass();
});

test("the picture shows three servers in lease, and says what the table says", async ({ visitor, page, request }) => {
  await logOutElsewhere(request, second);
  await visitor.register();
  await visitor.open("/cluster");
  const servers = new Servers(page);
  await servers.expectAllInLease();
  await expect(servers.nodes.locator(".you").filter({ hasText: "you" })).toHaveCount(1);
  await servers.expectTableEqualsPicture();
  await expect(page.getByRole("img", { name: "The servers and their leases" })).toBeVisible();
  // As many bars as rows, the same figures.
  await expect(async () => {
    const rows = await servers.ended.locator("tbody th").count();
    expect(await page.locator(".chart .bar-of").count()).toBe(rows);
    expect(await page.locator(".chart desc").textContent()).toContain(`of the last ${rows} `);
  }).toPass();
});

for (const reducedMotion of ["no-preference", "reduce"] as const) {
  test(`each log-out is seen on its way, and only those that happen now; motion: ${reducedMotion}`, async ({ visitor, page, request }) => {
    await page.emulateMedia({ reducedMotion });
    await visitor.register();
    await page.addInitScript(() => {
      const seen = Object.assign(window, { flights: 0, rebuilt: 0 });
      new MutationObserver((changes) => {
        for (const { addedNodes, removedNodes } of changes) {
          for (const node of addedNodes) if (node instanceof Element && node.matches(".flight")) seen.flights += 1;
          for (const node of removedNodes) if (node instanceof Element && !node.isConnected && node.matches(".picture, .picture .node, .bar-of, tr")) seen.rebuilt += 1;
        }
      }).observe(document, { childList: true, subtree: true });
    });
    const servers = new Servers(page);
    const seen = () => page.evaluate(() => (({ flights, rebuilt }) => ({ flights, rebuilt }))(window as never));
    // On a slow machine one may be old before the page hears of it, and then it is not shown on its way.
    const expectFlights = (of: string[]) =>
      expect(async () => {
        const { flights } = await seen();
        await Promise.all(of.map((url) => logOutElsewhere(request, url)));
        await expect.poll(async () => (await seen()).flights, { timeout: 10_000 }).toBe(flights + of.length);
      }).toPass();
    await visitor.open("/cluster");
    await servers.expectAllInLease();
    await expectFlights([second]);
    await visitor.open("/cluster");
    await servers.expectAllInLease();
    const before = await servers.ended.locator("tbody th").count();
    expect(await seen(), "nothing old is shown again").toEqual({ flights: 0, rebuilt: 0 });

    await expectFlights(instances);
    await expect(page.locator(".flight")).toHaveCount(0);
    const after = await servers.ended.locator("tbody th").count();
    expect(after).toBeGreaterThanOrEqual(Math.min(before + 3, 40));
    await expect(page.locator(".bus")).toHaveText(/^Redis\d of 5in \d+\.\d ms$/);
    if (after < 40) expect((await seen()).rebuilt, "what was there has stayed").toBe(0);
  });
}

for (const colorScheme of ["light", "dark"] as const) {
  test(`a server that is stopped turns amber, and recovers: ${colorScheme}`, async ({ visitor, page, request }) => {
    await page.emulateMedia({ colorScheme });
    await visitor.register();
    await visitor.open("/cluster");
    const servers = new Servers(page);
    await servers.expectAllInLease();
    const [, stopped, other] = await servers.askWhoAnswers();
    const calm = await page.locator(".servers").boundingBox();
    await whileStopped(stopped, async () => {
      await expect(servers.node(stopped).locator(".lease")).toHaveText("lease lost");
      await expect(servers.node(stopped).locator(".memory")).toHaveText("asks the database");
      await expect(servers.node(other).locator(".lease")).toHaveText("lease held");
      await expect(servers.words).toContainText(`Server ${stopped} has no lease.`);
      await servers.expectTableEqualsPicture();
      expect(await page.locator(".servers").boundingBox(), "nothing has jumped").toEqual(calm);
      await expectNoViolations(page);
    });
    await servers.expectAllInLease();
    await expect(servers.words).toContainText("Every server holds a lease");
    await servers.expectTableEqualsPicture();
  });
}

test.describe("with its own server stopped", () => {
  test.use({ expectedFault: /Failed to load resource: net::ERR_FAILED/ });

  test("the page says so, dims, and goes on with another", async ({ visitor, page }) => {
    await visitor.register();
    await visitor.open("/cluster");
    const servers = new Servers(page);
    await servers.expectAllInLease();
    const [answering] = await servers.askWhoAnswers();
    await page.route("**/api/cluster/events", (route) => route.abort());
    await whileStopped(answering, async () => {
      await expect(servers.words).toHaveText("No answer from the server. Trying again…");
      await expect(page.locator(".picture")).toHaveCSS("opacity", "0.45");
      await page.unroute("**/api/cluster/events");
      await expect(servers.node(answering).locator(".lease")).toHaveText("lease lost");
      await expect(page.locator(".picture")).toHaveCSS("opacity", "1");
    });
    await servers.expectAllInLease();
  });
});

test.describe("with a session that is ended on another server", () => {
  test.use({ expectedFault: refused(401) });

  test("the page of the servers turns into a sign-out by itself", async ({ visitor, page, request }) => {
    await visitor.register();
    await visitor.open("/cluster");
    await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
    const bearer = await visitor.bearer();
    expect((await request.post(`${second}/api/auth/logout`, withToken(bearer))).status()).toBe(200);
    await visitor.expectSignedOutInPlace();
  });
});

for (const [name, proxy] of proxies) {
  test(`${name} keeps the metrics and the health checks from the public in every spelling`, async () => {
    for (const path of ["/metrics", "/health/live", "/health/ready"]) {
      const letters = [...path.slice(1)].map((letter) => `%${letter.charCodeAt(0).toString(16)}`).join("");
      const spellings = [
        path,
        `/${path}`,
        path.toUpperCase(),
        `/${letters}`,
        `/.${path}`,
        `/x/..${path}`,
        `/x/%2e%2e${path}`,
        `/%2f${path}`,
        `${path}/`,
        `${path}?x`,
        `${path}%20`,
        `${path};x`,
        `${proxy}${path}`,
        `${proxy}/${path}`,
      ];
      for (const spelling of spellings) expect(await statusOf(proxy, spelling), spelling).toBe(404);
    }
  });

  test(`behind ${name} a client cannot claim another address, host or scheme`, async ({ request }) => {
    const form = { email: freshEmail(), password: PASSWORD };
    const claims = { "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https" };
    const headers = { ...claims, Connection: "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto" };
    for (const sent of [claims, headers]) {
      const begun = await request.post(`${proxy}/api/auth/register`, { headers: sent, form: { ...form, email: freshEmail() } });
      const { access_token } = await begun.json();
      const listed = await request.post(`${proxy}/api/account/sessions`, withToken(access_token));
      expect((await listed.json()).sessions[0].address).toBe("127.0.0.0/24");
    }
    const login = async (origin: string) =>
      (await request.post(`${proxy}/api/auth/login`, { headers: { ...claims, Origin: origin }, form })).status();
    expect(await login("http://evil.example"), "as if the site were called evil.example").toBe(403);
    expect(await login(proxy), "as if this page had come by https").toBe(401);
  });

  test(`behind ${name} a logout ends the session on every server, and its event stream`, async ({ request }) => {
    const form = { email: freshEmail(), password: PASSWORD };
    const begun = await request.post(`${proxy}/api/auth/register`, { form });
    const { access_token } = await begun.json();
    const cookies = begun.headersArray().filter((header) => header.name.toLowerCase() === "set-cookie");
    const cookie = cookies.map((header) => header.value.split(";")[0]).join("; ");
    await expectAcceptedByEach(request, access_token);

    const stream = await fetch(`${proxy}/api/session/events`, { headers: { cookie } });
    const events = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
    expect((await events.read()).value, "the first event is not held back").toContain("event: live");
    const ended = await request.post(`${proxy}/api/auth/logout`, withToken(access_token));
    expect(ended.status()).toBe(200);
    await expectRefusedByEach(request, access_token);
    let received = "";
    for (let read = await events.read(); !read.done; read = await events.read()) received += read.value;
    expect(received).toContain("event: ended");
  });

  test(`behind ${name} Hallpass answers a body that is too large`, async ({ request }) => {
    const form = { email: freshEmail(), password: "x".repeat(20_000) };
    const answer = await request.post(`${proxy}/api/auth/login`, { form });
    expect(answer.status()).toBe(413);
    expect(await answer.json()).toMatchObject({ error: "payload_too_large" });
  });
}

test("a reset of the password is confirmed by every server, and ends the session at each", async ({ visitor, page, request }) => {
  const email = await visitor.beginSession();
  const form = { email, password: PASSWORD, delivery: "body" };
  const { access_token } = await (await request.post(`${first}/api/auth/login`, { form })).json();
  await visitor.open("/forgot");
  await page.getByLabel("E-mail").fill(email);
  await page.getByRole("button", { name: "Send the link" }).click();
  await expect(page.getByText("has no mail server yet")).toBeVisible();
  await visitor.open(await linkIn(email, /^Reset/, CLUSTER));
  await page.getByLabel("New password").fill("staple battery horse");
  await page.getByRole("button", { name: "Change password" }).click();
  await expect(page.getByText(/All 5 servers confirmed it in/)).toBeVisible();
  for (const instance of instances) {
    expect((await request.post(`${instance}/api/account/me`, withToken(access_token))).status()).toBe(401);
  }
  for (const address of notes) expect((await request.get(address, withToken(access_token))).status()).toBe(401);
});
