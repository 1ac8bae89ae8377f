import type { Page } from "@playwright/test";
import { expect, freshEmail, PASSWORD, refused, test } from "./support";

/** The token has been shown for some seconds, and is far from its renewal. */
async function expectCountdown(page: Page) {
  const left = async () => Number(await page.locator(".number").innerText());
  await expect.poll(left).toBeLessThan(298);
  expect(await left()).toBeGreaterThan(60);
}

test("register, log out, log in, see your claims", async ({ visitor, page }) => {
  const email = await visitor.register();
  await visitor.signOut();
  await visitor.expectSignedOut();
  await visitor.signIn(email);
  await visitor.expectAccountOf(email);
  await expect(page.getByText(/seconds until/)).toBeVisible();
  for (const claim of ["sub", "sid", "jti"]) await expect(page.getByText(claim, { exact: true })).toBeVisible();
});

test("the first HTML already shows who is signed in", async ({ visitor, page }) => {
  const html = async (path: string) => (await page.request.get(path)).text();
  expect(await html("/")).toContain(">Create account<");
  await visitor.register();
  expect(await html("/")).toContain(">Sign out<");
  await visitor.open("/login");
  await expect(page).toHaveURL("/account");
});

test("a session survives a reload and a lost access token", async ({ visitor, page }) => {
  const email = await visitor.register();
  await page.reload();
  await visitor.expectAccountOf(email);
  await page.evaluate(() => localStorage.clear());
  await page.reload();
  await visitor.expectAccountOf(email);
  expect(await visitor.bearer()).not.toBeNull();
});

test("an access token is renewed ahead of its end", async ({ visitor, page }) => {
  const email = await visitor.register();
  const first = await visitor.bearer();
  const stored = await page.evaluate(() => JSON.parse(localStorage.getItem("hallpass-session")!));
  // Fifty seconds left of three hundred: less than a fifth.
  await visitor.alterStored({ expires_at: stored.expires_at - 250 });
  await expect.poll(() => visitor.bearer()).not.toBe(first);
  await expect(page.getByText("Renewed once")).toBeVisible();
  await visitor.expectAccountOf(email);
});

test.describe("with a stored token that the server refuses", () => {
  test.use({ expectedFault: refused(401) });

  test("the session goes on with the next one", async ({ visitor, page }) => {
    const email = await visitor.register();
    await page.evaluate(() => {
      const stored = JSON.parse(localStorage.getItem("hallpass-session")!);
      localStorage.setItem("hallpass-session", JSON.stringify({ ...stored, access_token: "a.b.c" }));
    });
    await page.reload();
    await visitor.expectAccountOf(email);
    expect(await visitor.bearer()).not.toBe("a.b.c");
  });
});

test("a browser that stores nothing keeps the session, without asking all the time", async ({ visitor, page }) => {
  await page.addInitScript(() => {
    Storage.prototype.setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
  });
  const asked: string[] = [];
  page.on("request", (sent) => sent.method() === "POST" && asked.push(new URL(sent.url()).pathname));
  const email = await visitor.register();
  await expectCountdown(page);
  await page.reload();
  await visitor.expectAccountOf(email);
  await expectCountdown(page);
  // One for each document.
  const renewed = ["/api/auth/refresh", "/api/account/me"];
  expect(asked).toEqual(["/api/auth/register", ...renewed, ...renewed]);
});

test("what the address says of an error is not shown as our words", async ({ visitor, page }) => {
  const forged = { error: "invalid_request", message: "Call +1 900", fields: { email: "Call +1 900" } };
  for (const error of ["invalid_request", "invalid_fields", "invalid_grant", "nonsense"]) {
    const text = Buffer.from(JSON.stringify({ ...forged, error })).toString("base64url");
    await visitor.open(`/login?__path=x&__err=${text}`);
    await expect(page.getByText("900")).toHaveCount(0);
  }
});

test.describe("on a device whose clock is an hour off", () => {
  for (const hours of [-1, 1]) {
    test(`by ${hours} h: no needless renewal, no early end`, async ({ visitor, page }) => {
      const refreshes: string[] = [];
      page.on("request", (sent) => sent.url().endsWith("/api/auth/refresh") && refreshes.push(sent.url()));
      await page.clock.install({ time: Date.now() + hours * 3_600_000 });
      const email = await visitor.register();
      await page.reload();
      await visitor.expectAccountOf(email);
      expect(refreshes).toEqual([]);
      await expectCountdown(page);
    });
  }
});

test.describe("with fields that cannot be accepted", () => {
  test.use({ expectedFault: refused(401, 409, 422) });

  test("the words are beside the field and the field has the focus", async ({ visitor, page }) => {
    await visitor.open("/register");
    await visitor.fillIn("not an address", PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByLabel("E-mail")).toBeFocused();
    await expect(page.getByLabel("E-mail")).toHaveAccessibleDescription(/Enter an e-mail address/);
    await expect(page.getByLabel("E-mail")).toHaveValue("not an address");

    await visitor.fillIn(freshEmail(), "password1");
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByLabel("Password")).toBeFocused();
    await expect(page.getByLabel("Password")).toHaveAccessibleDescription(/^Long enough.*too common/);
    await expect(page.getByLabel("E-mail")).not.toHaveAttribute("aria-invalid");
  });

  test("a taken address and a wrong password are told", async ({ visitor, page }) => {
    const email = await visitor.register();
    await visitor.signOut();
    await visitor.expectSignedOut();
    await visitor.open("/register");
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByLabel("E-mail")).toHaveAccessibleDescription(/already exists/);
    await page.getByRole("link", { name: "Sign in instead" }).click();
    await expect(page).toHaveURL("/login");
    await visitor.expectLive();
    await expect(page.getByLabel("E-mail")).toHaveValue(email);
    await page.getByLabel("Password").fill("wrong password");
    await page.getByRole("main").getByRole("button", { name: "Sign in" }).click();
    await expect(page.getByRole("alert")).toHaveText("The e-mail address or the password is wrong.");
    // It is selected, so that typing replaces it.
    await page.keyboard.type(PASSWORD);
    await expect(page.getByLabel("Password")).toHaveValue(PASSWORD);
    await page.keyboard.press("Enter");
    await visitor.expectAccountOf(email);
  });
});

test("a password can be shown, and is hidden again", async ({ visitor, page }) => {
  await visitor.open("/login");
  const [field, reveal] = [page.getByLabel("Password"), page.getByRole("button", { name: "Show password" })];
  await field.fill(PASSWORD);
  await expect(field).toHaveAttribute("type", "password");
  await reveal.click();
  await expect(field).toHaveAttribute("type", "text");
  await expect(reveal).toHaveAttribute("aria-pressed", "true");
  await expect(field).toHaveValue(PASSWORD);
  await reveal.click();
  await expect(field).toHaveAttribute("type", "password");
});

test("the form says why it is there, and what to do without a password", async ({ visitor, page }) => {
  for (const [path, heading] of [["/login", "Sign in"], ["/login?next=/sessions", "Sign in to continue"], ["/login?next=//evil.test", "Sign in"]]) {
    await visitor.open(path);
    await expect(page.getByRole("heading", { name: heading, exact: true })).toBeVisible();
    await expect(page.getByRole("link", { name: "Forgot your password?" })).toBeVisible();
  }
});

test("the other form keeps the address that was typed, out of its URL and once", async ({ visitor, page }) => {
  await visitor.open("/login");
  const email = freshEmail();
  await page.getByLabel("E-mail").fill(email);
  await page.getByRole("main").getByRole("link", { name: "Create an account" }).click();
  await expect(page).toHaveURL("/register");
  await expect(page.getByLabel("E-mail")).toHaveValue(email);
  await expect(page.getByLabel("Password")).toBeFocused();
  await page.reload();
  await expect(page.getByLabel("E-mail")).toHaveValue("");
});

test.describe("without JavaScript", () => {
  test.use({ javaScriptEnabled: false });

  test("the forms log in and out", async ({ page }) => {
    await page.goto("/register");
    await page.getByLabel("E-mail").fill(freshEmail());
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page).toHaveURL("/account");
    await page.locator(".user-menu summary").click();
    await page.getByRole("banner").getByRole("link", { name: "Sessions" }).click();
    await expect(page).toHaveURL("/sessions");
    await page.getByRole("banner").getByRole("button", { name: "Sign out" }).click();
    await expect(page).toHaveURL("/login?next=/sessions");
  });
});

test("everything can be done with the keyboard", async ({ visitor, page }) => {
  const press = (key: string) => page.keyboard.press(key);
  await visitor.open("/");
  await press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await press("Enter");
  await press("Tab");
  await expect(page.getByRole("main").getByRole("link", { name: "Create account" })).toBeFocused();
  await press("Enter");
  await expect(page).toHaveURL("/register");
  await visitor.expectLive();
  await expect(page.getByLabel("E-mail")).toBeFocused();
  const email = freshEmail();
  await page.keyboard.type(email);
  await press("Tab");
  await page.keyboard.type(PASSWORD);
  await press("Tab");
  await expect(page.getByRole("button", { name: "Show password" })).toBeFocused();
  await press("Tab");
  await expect(page.getByRole("button", { name: "Create account" })).toBeFocused();
  await press("Enter");
  await visitor.expectAccountOf(email);
});
