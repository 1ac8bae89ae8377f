import { expect, freshEmail, PASSWORD, refused, sendPastBrowser, test, Visitor } from "./support";

test("a copy of the token is dead once the page has logged out", async ({ visitor, page, request }) => {
  await visitor.register();
  const bearer = await visitor.bearer();
  const callMe = () => request.post("/api/account/me", { headers: { Authorization: `Bearer ${bearer}` } });

  const before = await callMe();
  expect(before.status()).toBe(200);

  await visitor.signOut();
  await expect(page.getByText(/You have been signed out\. Your token was revoked on the server in (\d+ ms|less than a millisecond)\./)).toBeVisible();
  await visitor.expectSignedOut();

  const after = await callMe();
  expect(after.status()).toBe(401);
  expect(after.headers()["www-authenticate"]).toBe('Bearer error="invalid_token"');
});

test("the account is out of reach after logging out", async ({ visitor, page }) => {
  await visitor.register();
  await visitor.signOut();
  await visitor.expectSignedOut();
  await visitor.open("/account");
  await expect(page).toHaveURL("/login");
});

test("logging out in one tab signs the other out", async ({ visitor, context }) => {
  const email = await visitor.register();
  const other = new Visitor(await context.newPage());
  await other.open("/account");
  await other.expectAccountOf(email);
  await visitor.signOut();
  await other.expectSignedOutInPlace();
});

test.describe("with the server out of reach", () => {
  test.use({ expectedFault: /Failed to load resource/ });

  test("logging out finishes here, says what is unsure, and can be tried again", async ({ visitor, page }) => {
    await visitor.register();
    await page.route("**/api/auth/logout", (route) => route.abort());
    await visitor.signOut();
    await visitor.expectSignedOut();
    await expect(page.getByText("the server could not confirm it")).toBeVisible();
    await page.unroute("**/api/auth/logout");
    await page.getByRole("button", { name: "Try again" }).click();
    await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
  });

  test("a log-out that was not confirmed stays one, and is taken up by the next page", async ({ visitor, page }) => {
    await visitor.register();
    await page.route("**/api/auth/logout", (route) => route.abort());
    await visitor.signOut();
    await visitor.expectSignedOut();
    await visitor.open("/account");
    await expect(page).toHaveURL("/login");
    await visitor.expectSignedOut();
    await page.unroute("**/api/auth/logout");
    await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
    expect((await page.request.post("/api/auth/refresh")).status()).toBe(401);
  });

  test("a log-out holds though its page is left before it is answered", async ({ visitor, page }) => {
    await visitor.register();
    let asked = 0;
    const registeredAt = page.url();
    await page.route("**/api/auth/logout", (route) => {
      asked += 1;
      // None of the first page's is ever answered.
      if (page.url() !== registeredAt) return route.continue();
    });
    await visitor.signOut();
    await expect.poll(() => asked).toBeGreaterThan(0);
    const cookies = await page.context().cookies();
    expect(cookies.some(({ name }) => name.startsWith("hallpass-logout-pending"))).toBe(true);
    await page.getByRole("link", { name: "Hallpass" }).click();
    await expect(page).toHaveURL("/");
    await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
    await visitor.expectSignedOut();
    expect((await page.request.post("/api/auth/refresh")).status()).toBe(401);
  });

  test("the other tab, too, says what is unsure, until it is confirmed", async ({ visitor, context }) => {
    const email = await visitor.register();
    const other = new Visitor(await context.newPage());
    await other.open("/account");
    await other.expectAccountOf(email);
    await context.route("**/api/auth/logout", (route) => route.abort());
    await visitor.signOut();
    for (const tab of [visitor, other]) await expect(tab.page.getByText("the server could not confirm it")).toBeVisible();
    await context.unroute("**/api/auth/logout");
    for (const tab of [visitor, other]) await tab.expectEnded(/You have been signed out/);
  });

  test("a log-out that was not confirmed is not in the way of signing in again", async ({ visitor, page }) => {
    const email = await visitor.register();
    const bearer = await visitor.bearer();
    await page.route("**/api/auth/logout", (route) => route.abort());
    await visitor.signOut();
    await visitor.expectSignedOutInPlace();
    await page.getByRole("link", { name: "Sign in again" }).click();
    await visitor.expectLive();
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("main").getByRole("button", { name: "Sign in" }).click();
    await visitor.expectAccountOf(email);
    const headers = { Authorization: `Bearer ${bearer}` };
    expect((await page.request.post("/api/account/me", { headers })).status(), "replaced").toBe(401);
  });
});

test.describe("when the cookie is lost on the way", () => {
  test.use({ expectedFault: refused(401) });

  for (const stored of [null, JSON.stringify({ access_token: "a.b.c", expires_at: 1, lifetime: 300, clock_offset: 0 })]) {
    test(`a log-out that the server saw no known token of is not called one; stored: ${stored}`, async ({ visitor, page }) => {
      await visitor.register();
      const bearer = await visitor.bearer();
      // This page does not renew it meanwhile.
      await visitor.open("/");
      await page.evaluate((stored) => {
        if (stored) localStorage.setItem("hallpass-session", stored);
        else localStorage.clear();
      }, stored);
      await page.route("**/api/auth/logout", async (route) => {
        const answer = await sendPastBrowser(route, ["authorization", "content-type", "origin"]);
        await route.fulfill({ status: answer.status, contentType: "application/json", body: await answer.text() });
      });
      await visitor.signOut();
      await expect(page.getByText("the server could not confirm it")).toBeVisible();
      const headers = { Authorization: `Bearer ${bearer}` };
      expect((await page.request.post("/api/account/me", { headers })).status(), "the session lives").toBe(200);
      await page.unroute("**/api/auth/logout");
      await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
      expect((await page.request.post("/api/account/me", { headers })).status()).toBe(401);
    });
  }

  test("the last token that the page saw ends the session, though the storage has lost it", async ({ visitor, page }) => {
    await visitor.register();
    const bearer = await visitor.bearer();
    // This page asks for something with the token, and does not renew it meanwhile.
    await visitor.open("/sessions");
    await expect(page.getByText("this device")).toBeVisible();
    await page.route("**/api/auth/logout", async (route) => {
      const answer = await sendPastBrowser(route, ["authorization", "content-type", "origin"]);
      await route.fulfill({ status: answer.status, contentType: "application/json", body: await answer.text() });
    });
    await page.evaluate(() => localStorage.clear());
    await visitor.signOut();
    await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
    const headers = { Authorization: `Bearer ${bearer}` };
    expect((await page.request.post("/api/account/me", { headers })).status()).toBe(401);
  });
});

test("a session that is ended by a copy of its token ends on the page, without a click", async ({ visitor, page, request }) => {
  await visitor.register();
  const bearer = await visitor.bearer();
  const ended = await request.post("/api/auth/logout", { headers: { Authorization: `Bearer ${bearer}` } });
  expect(ended.status()).toBe(200);
  await visitor.expectSignedOutInPlace();
  await visitor.expectEnded("You have been signed out.");
});

test.describe("by a plain form", () => {
  const confirmed = /You have been signed out\. Your token was revoked on the server in (\d+ ms|less than a millisecond)\./;

  test.describe("without scripts", () => {
    test.use({ javaScriptEnabled: false });

    test("a logout is confirmed, once, on the page that it leads to", async ({ page }) => {
      const email = freshEmail();
      const form = { email, password: PASSWORD };
      for (const [path, leadsTo] of [["/account", "/login"], ["/docs", "/docs"], ["/", "/"]]) {
        await page.request.post(path === "/account" ? "/api/auth/register" : "/api/auth/login", { form });
        await page.goto(path);
        await page.getByRole("banner").getByRole("button", { name: "Sign out" }).click();
        await expect(page).toHaveURL(leadsTo);
        await expect(page.getByRole("status").filter({ hasText: confirmed })).toBeVisible();
        // The next user to sign in is not signed out.
        await page.request.post("/api/auth/login", { form });
        const cookies = await page.context().cookies();
        expect(cookies.filter(({ name }) => name.startsWith("hallpass-signed-out"))).toEqual([]);
      }
    });
  });

  test.describe("on a page without scripts", () => {
    test.use({ expectedFault: refused(401) });

    test("a page that is restored says the same, and blames no browser", async ({ visitor, page }) => {
      await visitor.register();
      // A page that the browser restores gets this event. Chromium keeps none that was sent with no-store.
      const restore = () => page.evaluate(() => window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
      const other = new Visitor(await page.context().newPage());
      await other.page.goto("/docs");
      // As long as it is away, it hears nothing.
      await page.evaluate(() => window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
      await other.page.getByRole("banner").getByRole("button", { name: "Sign out" }).click();
      await expect(other.page.getByText(confirmed)).toBeVisible();
      await restore();
      await expect(page.getByText(confirmed)).toBeVisible();
      await visitor.expectSignedOutInPlace();
    });

    test("a page that is restored much later does not blame the browser either", async ({ visitor, page }) => {
      await visitor.register();
      const other = new Visitor(await page.context().newPage());
      await other.page.goto("/docs");
      await page.evaluate(() => window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
      await other.page.getByRole("banner").getByRole("button", { name: "Sign out" }).click();
      await expect(other.page.getByText(confirmed)).toBeVisible();
      const names = (await page.context().cookies()).map(({ name }) => name);
      await page.context().clearCookies({ name: names.find((name) => name.startsWith("hallpass-signed-out")) });
      await page.evaluate(() => window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
      await visitor.expectEnded("You have been signed out.");
    });
  });
});
