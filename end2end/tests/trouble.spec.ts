import type { Route } from "@playwright/test";
import { Server } from "./server";
import { expect, freshEmail, PASSWORD, refused, sendPastBrowser, test, Visitor } from "./support";

test.describe("with a server that is killed", () => {
  test.use({ expectedFault: /Failed to load resource|ERR_/ });

  test("a log-out finishes here, says what is unsure, and is made certain when the server is back", async ({ visitor, page }) => {
    const server = new Server();
    await server.start();
    try {
      await visitor.open(`http://${server.url}/register`);
      await visitor.fillIn(freshEmail(), PASSWORD);
      await page.getByRole("button", { name: "Create account" }).click();
      await expect(page.getByText(/seconds until/)).toBeVisible();
      const bearer = await visitor.bearer();
      await page.route("**/api/auth/logout", async (route) => {
        await server.kill();
        await route.continue();
      });
      await visitor.signOut();
      await expect(page.getByText("the server could not confirm it")).toBeVisible();
      await visitor.expectSignedOut();
      await page.unroute("**/api/auth/logout");
      await server.start();
      const callMe = () =>
        page.request.post(`http://${server.url}/api/account/me`, { headers: { Authorization: `Bearer ${bearer}` } });
      // Without a click.
      await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
      expect((await callMe()).status()).toBe(401);
    } finally {
      await server.kill();
    }
  });
});

test.describe("after a night", () => {
  test("a page that wakes renews its token before its first call", async ({ visitor, page }) => {
    await page.clock.install();
    const email = await visitor.register();
    await visitor.open("/sessions");
    await expect(page.getByText("this device")).toBeVisible();
    const asked: string[] = [];
    page.on("request", (sent) => sent.method() === "POST" && asked.push(new URL(sent.url()).pathname));
    // The device's clock is ahead by a night: whether its token still lives, it cannot know.
    await page.clock.fastForward("09:00:00");
    await page.getByRole("link", { name: "Token" }).click();
    await visitor.expectAccountOf(email);
    expect(asked.slice(0, 2)).toEqual(["/api/auth/refresh", "/api/account/me"]);
    expect(asked.filter((path) => path.endsWith("/refresh"))).toHaveLength(1);
  });
});

test.describe("during a renewal", () => {
  test.use({ expectedFault: refused(401) });

  test("a log-out that is pressed twice is one", async ({ visitor, page }) => {
    await visitor.register();
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    let underWay = 0;
    page.on("request", (sent) => (underWay += Number(sent.url().endsWith("/api/auth/refresh"))));
    for (const end of ["requestfinished", "requestfailed"] as const) {
      page.on(end as "requestfinished", (sent) => (underWay -= Number(sent.url().endsWith("/api/auth/refresh"))));
    }
    await page.route("**/api/auth/refresh", async (route) => {
      await held;
      await route.continue().catch(() => {});
    });
    const renewal = page.waitForRequest("**/api/auth/refresh");
    await visitor.alterStored({ expires_at: 0 });
    await renewal;
    await page.getByRole("banner").getByRole("button", { name: "Sign out" }).dblclick();
    await visitor.expectSignedOut();
    await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
    release();
    await expect.poll(() => underWay).toBe(0);
    await visitor.expectSignedOut();
    expect((await page.request.post("/api/auth/refresh")).status()).toBe(401);
  });
});

test.describe("with answers to a refresh that are lost or late", () => {
  /** What the server answers to the refresh; the cookie in it is lost. */
  const refreshInVain = async (route: Route) => {
    const answer = await sendPastBrowser(route, ["cookie", "content-type", "origin"]);
    expect(answer.status).toBe(200);
    return answer;
  };

  test("the refresh is sent again within the grace, and the session goes on", async ({ visitor, page }) => {
    const email = await visitor.register();
    let attempts = 0;
    await page.route("**/api/auth/refresh", async (route) => {
      attempts += 1;
      if (attempts === 1) await refreshInVain(route);
      else await route.continue();
    });
    await visitor.alterStored({ expires_at: 0 });
    await expect(page.getByText("Renewed once")).toBeVisible();
    await visitor.expectAccountOf(email);
  });

  test("the other tab waits for the one that sends it again", async ({ visitor, context }) => {
    const email = await visitor.register();
    const other = new Visitor(await context.newPage());
    await other.open("/account");
    await other.expectAccountOf(email);
    let attempts = 0;
    await context.route("**/api/auth/refresh", async (route) => {
      attempts += 1;
      if (attempts === 1) await refreshInVain(route);
      else await route.continue();
    });
    await visitor.alterStored({ expires_at: 0 });
    for (const tab of [visitor, other]) await expect(tab.page.getByText("Renewed once")).toBeVisible();
    for (const tab of [visitor, other]) await tab.expectAccountOf(email);
  });

  test("a slow connection is not taken for a theft", async ({ visitor, page }) => {
    const email = await visitor.register();
    const late: (() => Promise<void>)[] = [];
    await page.route("**/api/auth/refresh", async (route) => {
      const answer = await refreshInVain(route);
      const headers = { ...Object.fromEntries(answer.headers), "set-cookie": answer.headers.getSetCookie().join("\n") };
      const body = await answer.text();
      late.push(() => route.fulfill({ status: answer.status, headers, body }));
    });
    await visitor.alterStored({ expires_at: 0 });
    await expect(page.getByRole("alert")).toHaveText(/The server could not be reached/);
    await expect(page.getByText(`Signed in as ${email}`)).toBeVisible();
    await late[0]();
    await expect(page.getByText("Renewed once")).toBeVisible();
    await expect(page.getByRole("alert")).toHaveCount(0);
    await page.unroute("**/api/auth/refresh");
    await page.getByRole("button", { name: "Renew now" }).click();
    await expect(page.getByText("Renewed 2 times")).toBeVisible();
  });
});

test.describe("with a server that refuses a refresh for now", () => {
  test.use({ expectedFault: refused(429, 500, 503) });

  test("429 keeps the session, and the server is not asked again before it says", async ({ visitor, page }) => {
    const email = await visitor.register();
    let attempts = 0;
    await page.route("**/api/auth/refresh", (route) => {
      attempts += 1;
      return route.fulfill({ status: 429, json: { error: "too_many_requests", message: "", retry_after: 3600 } });
    });
    await visitor.alterStored({ expires_at: 0 });
    const alert = page.getByRole("alert");
    await expect(alert).toHaveText(/Too many requests\. Wait \d+ seconds/);
    const told = await alert.innerText();
    await page.getByRole("button", { name: "Try again" }).click();
    await expect(alert).not.toHaveText(told);
    await expect(alert).toHaveText(/Too many requests\. Wait \d+ seconds/);
    expect(attempts).toBe(1);
    await page.unroute("**/api/auth/refresh");
    await page.reload();
    await visitor.expectAccountOf(email);
  });

  for (const [status, error] of [[500, "server_error"], [503, "temporarily_unavailable"]] as const) {
    test(`${status} keeps the session, and the refresh is sent again`, async ({ visitor, page }) => {
      const email = await visitor.register();
      let attempts = 0;
      await page.route("**/api/auth/refresh", (route) => {
        attempts += 1;
        return attempts < 3 ? route.fulfill({ status, json: { error, message: "" } }) : route.continue();
      });
      await visitor.alterStored({ expires_at: 0 });
      await expect(page.getByText("Renewed once")).toBeVisible();
      await visitor.expectAccountOf(email);
    });
  }
});

test.describe("in a browser that allows little", () => {
  test.use({ expectedFault: /has no Web Locks|cannot be read|Failed to load resource.* 401 / });

  test("without storage the session holds, and the page says what that means", async ({ visitor, page }) => {
    await page.addInitScript(() => {
      Object.defineProperty(window, "localStorage", {
        get: () => {
          throw new DOMException("denied", "SecurityError");
        },
      });
    });
    await visitor.open("/register");
    const email = freshEmail();
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await visitor.expectAccountOf(email);
    await page.reload();
    await visitor.expectAccountOf(email);
    await expect(page.getByText("This browser stores nothing for this site")).toBeVisible();
    await visitor.signOut();
    await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
  });

  test("what cannot be read in its storage is fetched again", async ({ visitor, page }) => {
    const email = await visitor.register();
    await page.evaluate(() => localStorage.setItem("hallpass-session", "{not json"));
    await page.reload();
    await visitor.expectAccountOf(email);
    expect(await visitor.bearer()).toMatch(/^ey/);
  });

  test("without Web Locks two tabs renew at the same time, and both go on", async ({ visitor, context }) => {
    await context.addInitScript(() => Object.defineProperty(navigator, "locks", { value: undefined }));
    const email = await visitor.register();
    const other = new Visitor(await context.newPage());
    await other.open("/account");
    for (const tab of [visitor, other]) await tab.alterStored({ expires_at: 0 });
    await Promise.all([visitor, other].map((tab) => tab.page.reload()));
    for (const tab of [visitor, other]) await tab.expectAccountOf(email);
  });

  test("without AbortSignal.timeout a token is renewed", async ({ visitor, page }) => {
    await page.addInitScript(() => Object.defineProperty(AbortSignal, "timeout", { value: undefined }));
    await visitor.register();
    await visitor.alterStored({ expires_at: 0 });
    await expect(page.getByText("Renewed once")).toBeVisible();
  });

  test("without cookies nobody can sign in, and no session is begun", async ({ visitor, page }) => {
    await page.addInitScript(() => Object.defineProperty(navigator, "cookieEnabled", { value: false }));
    const asked: string[] = [];
    page.on("request", (sent) => sent.method() === "POST" && asked.push(sent.url()));
    await visitor.signIn("admin@example.com");
    await expect(page.getByText("This browser blocks the cookies of this site")).toBeVisible();
    await expect(page.getByRole("alert")).toHaveText(/Allow cookies for this site, then sign in again/);
    expect(asked).toEqual([]);
  });

  test("a session whose cookie is gone ends with a reason", async ({ visitor, page }) => {
    await visitor.register();
    await page.context().clearCookies();
    await visitor.alterStored({ expires_at: 0 });
    await visitor.expectEnded("Your browser did not keep the cookie of this site.");
  });
});

test("two tabs renew one at a time, and share what they get", async ({ visitor, context }) => {
  const email = await visitor.register();
  const other = new Visitor(await context.newPage());
  const refreshes: string[] = [];
  context.on("request", (sent) => sent.url().endsWith("/api/auth/refresh") && refreshes.push(sent.url()));
  // Chromium may hand over the lock before what was stored under it: then the second one asks, too, and
  // is answered alike. Without the lock each would, every time.
  await expect(async () => {
    // Where no page is that would renew it by itself, before it is left.
    for (const tab of [visitor, other]) await tab.open("/");
    refreshes.length = 0;
    await visitor.alterStored({ expires_at: 0 });
    await Promise.all([visitor, other].map((tab) => tab.page.goto("/account")));
    for (const tab of [visitor, other]) await tab.expectAccountOf(email);
    expect(refreshes).toHaveLength(1);
  }).toPass();
});

test.describe("after too many attempts", () => {
  test.use({ expectedFault: refused(401, 429) });

  test("the form counts down to the next one", async ({ visitor, page }) => {
    const email = await visitor.register();
    await visitor.signOut();
    await visitor.expectSignedOut();
    await visitor.open("/login");
    const form = { email, password: "wrong password" };
    const attempt = async () => (await page.request.post("/api/auth/login", { form })).status();
    // The wait doubles with each attempt that is let in: in the end it is longer than a slow machine takes.
    await expect(async () => {
      await expect.poll(attempt, { intervals: [0] }).toBe(429);
      await visitor.fillIn(email, "wrong password");
      const answer = page.waitForResponse("**/api/auth/login");
      await page.getByRole("button", { name: "Sign in" }).click();
      expect((await answer).status()).toBe(429);
    }).toPass();
    await expect(page.getByText("Too many attempts.")).toBeVisible();
    await expect(page.getByRole("timer")).toHaveText("You can try again now.");
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await visitor.expectAccountOf(email);
  });
});
