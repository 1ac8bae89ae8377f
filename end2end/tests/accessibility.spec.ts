import type { Page } from "@playwright/test";
import { expect, expectNoViolations, freshEmail, PASSWORD, refused, test, type Visitor } from "./support";

/** The states of the pages, and the way to each. */
const states: Record<string, (visitor: Visitor, page: Page) => Promise<void>> = {
  "/": (visitor) => visitor.open("/"),
  "/login": (visitor) => visitor.open("/login"),
  "/register": (visitor) => visitor.open("/register"),
  "/replay": (visitor) => visitor.open("/replay"),
  "/nothing/here": async (_, page) => {
    await page.goto("/nothing/here");
  },
  "/docs": async (visitor, page) => {
    await visitor.open("/");
    await page.getByRole("contentinfo").getByRole("link", { name: "API" }).click();
    await expect(page.getByRole("heading", { name: "The API" })).toBeVisible();
  },
  "/register with errors": async (visitor, page) => {
    await visitor.open("/register");
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByLabel("E-mail")).toHaveAttribute("aria-invalid", "true");
  },
  "/register with a taken address and the password shown": async (visitor, page) => {
    await visitor.open("/register");
    await visitor.fillIn("admin@example.com", PASSWORD);
    await page.getByRole("button", { name: "Show password" }).click();
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByRole("link", { name: "Sign in instead" })).toBeVisible();
  },
  "/login to continue": (visitor) => visitor.open("/login?next=/sessions"),
  "/account": openAccount,
  "/account with the menu open": async (visitor, page) => {
    await openAccount(visitor);
    await page.locator(".user-menu summary").click();
    await expect(page.getByRole("banner").getByRole("link", { name: "Password" })).toBeVisible();
  },
  "/account with an answer and a copy": async (visitor, page) => {
    await openAccount(visitor);
    await page.getByRole("button", { name: "Call the API" }).click();
    await page.getByText("Request and response").click();
    await expect(page.getByRole("group", { name: "Response" })).toBeVisible();
    await page.getByRole("button", { name: "Renew now" }).click();
    await expect(page.getByText("Renewed once")).toBeVisible();
    await page.getByRole("button", { name: "Keep a copy" }).click();
    await expect(page.getByText(/^Kept/)).toBeVisible();
  },
  "/account, signed out": async (visitor) => {
    await openAccount(visitor);
    await visitor.signOut();
    await visitor.expectSignedOutInPlace();
  },
  "/sessions": openSessions,
  "/sessions with a dialog": async (visitor, page) => {
    await openSessions(visitor, page);
    await page.getByRole("button", { name: "End other sessions" }).click();
    await expect(page.getByRole("dialog")).toBeVisible();
  },
  "/sessions with one that has ended": async (visitor, page) => {
    const email = await visitor.beginSession();
    await visitor.open("/sessions");
    // Past this browser, whose session it would replace.
    const body = new URLSearchParams({ email, password: PASSWORD, delivery: "body" });
    expect((await fetch(new URL("/api/auth/login", page.url()), { method: "POST", body })).status).toBe(200);
    await page.reload();
    await page.getByRole("button", { name: /^End the session/ }).click();
    await expect(page.locator(".toast")).toBeVisible();
    await expect(page.getByText("Ended", { exact: true })).toBeFocused();
  },
  "/security": async (visitor, page) => {
    await visitor.beginSession();
    await visitor.open("/security");
    await expect(page.getByText("Signed in", { exact: true })).toBeVisible();
  },
  "/login with a code": async (visitor, page) => {
    await page.route("**/api/auth/login", (route) => route.fulfill({ status: 403, json: { error: "second_factor_required", message: "" } }));
    await visitor.signIn(freshEmail());
    await expect(page.getByLabel("Code")).toBeFocused();
  },
  "/password with errors": async (visitor, page) => {
    await visitor.beginSession();
    await visitor.open("/password");
    await page.getByRole("button", { name: "Change password" }).click();
    await expect(page.getByLabel("Current password")).toHaveAttribute("aria-invalid", "true");
  },
  "/forgot with an answer": async (visitor, page) => {
    await visitor.open("/forgot");
    await page.getByLabel("E-mail").fill(freshEmail());
    await page.getByRole("button", { name: "Send the link" }).click();
    await expect(page.getByText("a mail is on its way")).toBeVisible();
  },
  "/reset": (visitor) => visitor.open("/reset?token=x"),
  "/reset with a dead link": async (visitor, page) => {
    await visitor.open("/reset?token=x");
    await page.getByLabel("New password").fill(PASSWORD);
    await page.getByRole("button", { name: "Change password" }).click();
    await expect(page.getByRole("alert")).toHaveText(/too old/);
  },
  "/verify": (visitor) => visitor.open("/verify?token=x"),
  "/settings": openSettings,
  "/settings with a dialog": async (visitor, page) => {
    await openSettings(visitor, page);
    await page.getByRole("button", { name: "Delete account…" }).click();
    await expect(page.getByRole("dialog")).toBeVisible();
  },
  "/cluster": async (visitor, page) => {
    await visitor.beginSession();
    await visitor.open("/cluster");
    await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
  },
  "/replay with a copy": openReplayWithCopy,
  "/replay with an answer": async (visitor, page) => {
    await openReplayWithCopy(visitor, page);
    await page.getByRole("button", { name: "Send the copy" }).click();
    await expect(page.getByRole("row", { name: /401/ })).toBeVisible();
  },
  "/admin": openAdmin,
  "/admin with a question about a user": async (visitor, page) => {
    const email = freshEmail();
    expect((await page.request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
    await openAdmin(visitor, page);
    await page.getByLabel("E-mail address").fill(email);
    await page.getByRole("button", { name: "Find" }).click();
    await page.getByRole("button", { name: `Disable ${email}` }).click();
    await expect(page.getByRole("dialog", { name: `Disable ${email}?` })).toBeVisible();
  },
  "/admin of a user who is none": async (visitor, page) => {
    await visitor.beginSession();
    await visitor.open("/admin");
    await expect(page.getByText("Only an administrator may see this page.")).toBeVisible();
  },
  "/admin with a dialog": async (visitor, page) => {
    await openAdmin(visitor, page);
    await page.getByRole("button", { name: "End all sessions of all users" }).click();
    await expect(page.getByRole("dialog")).toBeVisible();
  },
};

async function openSettings(visitor: Visitor, page: Page) {
  await visitor.beginSession();
  await visitor.open("/settings");
  await expect(page.getByText("It is not confirmed yet")).toBeVisible();
}

async function openAccount(visitor: Visitor) {
  const email = await visitor.beginSession();
  await visitor.open("/account");
  await visitor.expectAccountOf(email);
}

async function openSessions(visitor: Visitor, page: Page) {
  await visitor.beginSession();
  await visitor.open("/sessions");
  await expect(page.getByText("this device")).toBeVisible();
}

async function openReplayWithCopy(visitor: Visitor, page: Page) {
  await openAccount(visitor);
  await page.getByRole("button", { name: "Keep a copy" }).click();
  await visitor.signOut();
  await visitor.expectSignedOut();
  await expect(page).toHaveURL("/replay");
}

async function openAdmin(visitor: Visitor, page: Page) {
  const form = { email: "admin@example.com", password: PASSWORD };
  expect((await page.request.post("/api/auth/login", { form })).status()).toBe(200);
  await visitor.open("/admin");
  await expect(page.getByRole("table", { name: "Users by address" })).toBeVisible();
}

for (const viewport of [{ width: 1280, height: 900 }, { width: 320, height: 640 }]) {
  test.describe(`${viewport.width} px`, () => {
    test.use({ viewport, expectedFault: refused(401, 403, 404, 409, 422) });

    for (const [state, reach] of Object.entries(states)) {
      test(`axe finds nothing, nothing overflows: ${state}`, async ({ visitor, page }) => {
        await reach(visitor, page);
        for (const colorScheme of ["light", "dark"] as const) {
          await page.emulateMedia({ colorScheme });
          await expectNoViolations(page);
        }
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect(overflow, "too wide").toBeLessThanOrEqual(0);
      });
    }
  });
}
