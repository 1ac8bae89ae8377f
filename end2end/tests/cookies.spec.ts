import { createServer, request as send, type Server as HttpServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { chromium, type APIRequestContext, type BrowserContext } from "@playwright/test";
import { Server } from "./server";
import { expect, freshEmail, PASSWORD, test, Visitor } from "./support";

/** A proxy in front of the site, which drops the cookies of the server while `drops` is set. */
class CookieFilter {
  drops = true;
  private constructor(private readonly server: HttpServer) {}

  static async start(site: string): Promise<CookieFilter> {
    const { hostname, port } = new URL(site);
    const server = createServer((request, response) => {
      const { method, url, headers } = request;
      const forwarded = send({ hostname, port, method, path: url, headers }, (answer) => {
        const headers = { ...answer.headers };
        if (filter.drops) delete headers["set-cookie"];
        response.writeHead(answer.statusCode!, headers);
        answer.pipe(response);
      });
      forwarded.on("error", () => response.destroy());
      response.on("close", () => forwarded.destroy());
      request.pipe(forwarded);
    });
    const filter = new CookieFilter(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return filter;
  }

  get url() {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const filtered = test.extend<{ filter: CookieFilter }>({
  filter: async ({ baseURL }, use) => {
    const filter = await CookieFilter.start(baseURL!);
    await use(filter);
    filter.close();
  },
});

const forms = [["/login", "Sign in"], ["/register", "Create account"]] as const;

/** The live sessions of an account, without the one that asks. */
async function otherSessions(request: APIRequestContext, form: { email: string; password: string }) {
  const { access_token } = await (await request.post("/api/auth/login", { form: { ...form, delivery: "body" } })).json();
  const headers = { Authorization: `Bearer ${access_token}` };
  const { sessions } = await (await request.post("/api/account/sessions", { headers })).json();
  return sessions.length - 1;
}

async function createAccount(request: APIRequestContext) {
  const form = { email: freshEmail(), password: PASSWORD };
  const made = await request.post("/api/auth/register", { form: { ...form, delivery: "body" } });
  const { access_token } = await made.json();
  await request.post("/api/auth/logout", { headers: { Authorization: `Bearer ${access_token}` } });
  return form;
}

filtered.describe("where the cookies are dropped without a word", () => {
  // The stream of the last page, which the proxy cuts off at the end.
  filtered.use({ expectedFault: /Failed to load resource.* (401 |net::ERR_INCOMPLETE_CHUNKED_ENCODING)/ });

  for (const [path, button] of forms) {
    filtered(`${path} says so, and leaves no session behind`, async ({ visitor, page, request, filter }) => {
      const form = path === "/login" ? await createAccount(request) : { email: freshEmail(), password: PASSWORD };
      await visitor.open(filter.url + path);
      await visitor.fillIn(form.email, PASSWORD);
      await page.getByRole("main").getByRole("button", { name: button }).click();
      await expect(page.getByRole("alert")).toHaveText(/Your browser did not keep the cookie of this site/);
      expect(page.url()).toBe(filter.url + path);
      await expect(page.getByLabel("E-mail")).toHaveValue(form.email);
      expect(await visitor.bearer()).toBeNull();
      expect(await otherSessions(request, form)).toBe(0);
      // Once they are kept, the same form works.
      filter.drops = false;
      await page.goto(`${filter.url}/login`);
      await visitor.expectLive();
      await visitor.fillIn(form.email, PASSWORD);
      await page.getByRole("main").getByRole("button", { name: "Sign in" }).click();
      await expect(page).toHaveURL(`${filter.url}/account`);
    });
  }

  filtered("an earlier version, which sets no cookie for scripts, lets the user in", async ({ visitor, page, context, filter }) => {
    filter.drops = false;
    await hideSessionId(context);
    await visitor.open(`${filter.url}/register`);
    const email = freshEmail();
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByText(`Signed in as ${email}`)).toBeVisible();
  });
});

/** Scripts do not see the cookie with the id of the session. */
async function hideSessionId(context: BrowserContext) {
  await context.addInitScript(() => {
    const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, "cookie")!;
    const visible = (all: string) => all.split("; ").filter((cookie) => !cookie.startsWith("hallpass-session-id")).join("; ");
    Object.defineProperty(document, "cookie", { get: () => visible(get!.call(document)), set: (text) => set!.call(document, text) });
  });
}

filtered.describe("where the cookies are dropped, without scripts", () => {
  filtered.use({ javaScriptEnabled: false });

  for (const [path, button] of forms) {
    filtered(`the form of ${path} leads to a page that says so`, async ({ page, request, filter }) => {
      const form = path === "/login" ? await createAccount(request) : { email: freshEmail(), password: PASSWORD };
      const submit = async (button: string) => {
        await page.getByLabel("E-mail").fill(form.email);
        await page.getByLabel("Password").fill(PASSWORD);
        await page.getByRole("main").getByRole("button", { name: button }).click();
      };
      await page.goto(`${filter.url}${path}?next=/sessions`);
      await submit(button);
      await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
      await expect(page.getByRole("alert")).toHaveText(/Your browser did not keep the cookie of this site/);
      filter.drops = false;
      await submit("Sign in");
      await expect(page).toHaveURL(`${filter.url}/sessions`);
    });
  }
});

test("a site that requires https says so where it is opened over http", async ({ launchOptions }) => {
  const server = new Server({ HALLPASS_HTTPS: "true" });
  await server.start();
  // A name that no browser takes for this machine, where it would keep the cookies.
  const browser = await chromium.launch({
    ...launchOptions,
    args: [...(launchOptions.args ?? []), "--host-resolver-rules=MAP hallpass.example 127.0.0.1"],
  });
  try {
    const visitor = new Visitor(await browser.newPage());
    await visitor.open(`http://hallpass.example:${server.url.split(":")[1]}/register`);
    await visitor.fillIn(freshEmail(), PASSWORD);
    await visitor.page.getByRole("button", { name: "Create account" }).click();
    await expect(visitor.page.getByRole("alert")).toHaveText(/Change http:\/\/ to https:\/\/ in the address/);
    expect(await visitor.bearer()).toBeNull();
  } finally {
    await browser.close();
    await server.kill();
  }
});
