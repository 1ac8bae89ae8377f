import type { BrowserContext, Page } from "@playwright/test";
import { expect, freshEmail, PASSWORD, refused, sendPastBrowser, test, Visitor } from "./support";

/** The page goes into the background, or comes back, as it does when another tab of its window is chosen. */
async function setHidden(page: Page, hidden: boolean) {
  await page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    window.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
}

/** Another user begins a session in this browser, by a request that no page makes. */
async function replaceSession(context: BrowserContext): Promise<string> {
  const email = freshEmail();
  expect((await context.request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
  return email;
}

test.describe("a tab that shows one user while the browser acts as another", () => {
  // The stream of the session that ended, and the token of it.
  test.use({ expectedFault: refused(401) });

  test("shows the other user once it is looked at", async ({ visitor, page, context }) => {
    await visitor.register();
    await setHidden(page, true);
    const bob = await replaceSession(context);
    const reloaded = page.waitForEvent("load");
    await setHidden(page, false);
    await reloaded;
    await visitor.expectAccountOf(bob);
  });

  test("shows the other user at once if they signed in in another tab", async ({ visitor, page, context }) => {
    const bob = freshEmail();
    expect((await page.request.post("/api/auth/register", { form: { email: bob, password: PASSWORD, delivery: "body" } })).status()).toBe(200);
    // A form that was open when ann signed in elsewhere, with the script that would follow her held back.
    const other = new Visitor(await context.newPage());
    await other.page.addInitScript(() => window.addEventListener("storage", (event) => event.stopImmediatePropagation(), true));
    await other.open("/login");
    await visitor.register();
    await setHidden(page, true);
    await other.fillIn(bob, PASSWORD);
    await other.page.getByRole("main").getByRole("button", { name: "Sign in" }).click();
    await other.expectAccountOf(bob);
    await visitor.expectAccountOf(bob);
  });

  test("shows the other user although its session ends before the response to their sign-in arrives", async ({ visitor, page, context }) => {
    const bob = freshEmail();
    expect((await page.request.post("/api/auth/register", { form: { email: bob, password: PASSWORD, delivery: "body" } })).status()).toBe(200);
    const other = new Visitor(await context.newPage());
    await other.page.addInitScript(() => window.addEventListener("storage", (event) => event.stopImmediatePropagation(), true));
    await other.open("/login");
    await recordStreams(context);
    await visitor.register();
    await expect.poll(() => connections([page], SESSION)).toBe(1);
    await other.page.route("**/api/auth/login", async (route) => {
      const answer = await sendPastBrowser(route, ["cookie", "content-type", "accept"]);
      await expect.poll(() => connections([page], SESSION), "the notice of the end has arrived").toBe(0);
      const headers = { "content-type": "application/json", "set-cookie": answer.headers.getSetCookie().join("\n") };
      await route.fulfill({ status: answer.status, headers, body: await answer.text() });
    });
    const reloaded = page.waitForEvent("load");
    await other.fillIn(bob, PASSWORD);
    await other.page.getByRole("main").getByRole("button", { name: "Sign in" }).click();
    await reloaded;
    await visitor.expectAccountOf(bob);
  });

  test("uses no token of the former user", async ({ visitor, page, context }) => {
    const ann = await visitor.register();
    const bearer = await visitor.bearer();
    const session = (name: string) => name.startsWith("hallpass-session-id") || name.startsWith("hallpass-refresh");
    const anns = (await context.cookies()).filter(({ name }) => session(name));
    await visitor.open("/");
    // Ann's session stays live: only the cookies are another user's.
    const bob = freshEmail();
    await context.clearCookies();
    expect((await page.request.post("/api/auth/register", { form: { email: bob, password: PASSWORD } })).status()).toBe(200);
    await visitor.open("/account");
    await visitor.expectAccountOf(bob);
    expect(await visitor.bearer()).not.toBe(bearer);
    // And back.
    await context.clearCookies();
    await context.addCookies(anns);
    await page.reload();
    await visitor.expectAccountOf(ann);
  });
});

/** The streams of this page that are open, by their paths. */
const recordStreams = (context: BrowserContext) =>
  context.addInitScript(() => {
    const open: Record<string, number> = {};
    Object.assign(window, { open_streams: open });
    window.EventSource = class extends EventSource {
      constructor(path: string) {
        super(path);
        open[path] = (open[path] ?? 0) + 1;
      }
      close() {
        super.close();
        open[new URL(this.url).pathname] -= 1;
      }
    };
  });

const streamsOf = (page: Page): Promise<Record<string, number>> =>
  page.evaluate(() => (window as unknown as { open_streams: Record<string, number> }).open_streams);

/** The number of connections to that path that all pages have open. */
async function connections(pages: Page[], path: string) {
  const all = await Promise.all(pages.map(streamsOf));
  return all.map((open) => open[path] ?? 0).reduce((sum, count) => sum + count, 0);
}

const SESSION = "/api/session/events";
const CLUSTER = "/api/cluster/events";

test.describe("with many windows", () => {
  /** Windows of one browser that show the servers, all visible. */
  async function open(visitor: Visitor, context: BrowserContext, count: number): Promise<Visitor[]> {
    await recordStreams(context);
    await visitor.beginSession();
    const windows = [visitor];
    while (windows.length < count) windows.push(new Visitor(await context.newPage()));
    for (const window of windows) {
      await window.open("/cluster");
      await expect(window.page.getByRole("heading", { level: 1 })).toBeVisible();
      await expect(window.page.locator(".waiting:visible")).toHaveCount(0);
    }
    return windows;
  }

  test("seven windows that follow the servers leave connections for the eighth", async ({ visitor, context }) => {
    const windows = await open(visitor, context, 7);
    const pages = windows.map(({ page }) => page);
    expect(await connections(pages, SESSION)).toBe(1);
    expect(await connections(pages, CLUSTER)).toBe(1);
    const eighth = new Visitor(await context.newPage());
    await eighth.open("/account");
    await expect(eighth.page.getByText("Signed in as")).toBeVisible();
    // Each of them learns of the end of the session, and its reason.
    const bearer = await eighth.bearer();
    await context.request.post("/api/auth/logout", { headers: { Authorization: `Bearer ${bearer}` } });
    for (const window of [...windows, eighth]) await window.expectEnded("You have been signed out.");
  });

  test("the next window takes over when the one with the connection is closed or hidden", async ({ visitor, context }) => {
    const windows = await open(visitor, context, 3);
    for (const leave of [(page: Page) => setHidden(page, true), (page: Page) => page.close()]) {
      const had = await Promise.all(windows.map(async ({ page }) => (await streamsOf(page))[SESSION] ?? 0));
      const [leader] = windows.splice(had.indexOf(1), 1);
      await leave(leader.page);
      await expect.poll(() => connections(windows.map(({ page }) => page), SESSION)).toBe(1);
    }
    const [last] = windows;
    const bearer = await last.bearer();
    await context.request.post("/api/auth/logout", { headers: { Authorization: `Bearer ${bearer}` } });
    await last.expectEnded("You have been signed out.");
  });

  for (const missing of ["locks", "BroadcastChannel"]) {
    test(`without ${missing} each window has a connection`, async ({ visitor, context }) => {
      await context.addInitScript((missing) => {
        Object.defineProperty(missing === "locks" ? navigator : window, missing, { value: undefined });
      }, missing);
      const pages = (await open(visitor, context, 2)).map(({ page }) => page);
      await expect.poll(() => connections(pages, SESSION)).toBe(2);
    });
  }
});
