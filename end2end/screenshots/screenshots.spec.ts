import type { APIRequestContext, Page } from "@playwright/test";
import { expect, freshEmail, PASSWORD, test, Visitor } from "../tests/support";
import { codeOf } from "../tests/totp";

/** Pictures of each page in each of its states: to be looked at, in `target/screenshots`; those that the README shows, in `docs`. */
const FOR_README: Record<string, string> = {
  "token-with-a-copy": "token",
  "replay-answered": "replay",
  servers: "servers",
  sessions: "sessions",
};

const screens = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

test.use({ expectedFault: /Failed to (load resource|fetch dynamically)/ });

for (const colorScheme of ["light", "dark"] as const) {
  for (const [screen, viewport] of Object.entries(screens)) {
    test(`${screen}, ${colorScheme}`, async ({ visitor, page, context, request }) => {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize(viewport);
      const shoot = async (name: string, { fullPage = true } = {}) => {
        await page.evaluate(() => (document.activeElement as HTMLElement)?.blur());
        await page.screenshot({ path: `../target/screenshots/${name}-${screen}-${colorScheme}.png`, fullPage });
        if (FOR_README[name] && screen === "desktop" && colorScheme === "light") {
          await page.screenshot({ path: `../docs/${FOR_README[name]}.png`, fullPage });
        }
      };

      for (const [name, path] of Object.entries({ home: "/", login: "/login", register: "/register", "replay-empty": "/replay" })) {
        await visitor.open(path);
        await shoot(name);
      }
      for (const [name, path] of Object.entries({ docs: "/docs", "not-found": "/nothing" })) {
        await page.goto(path);
        await shoot(name);
      }
      await withoutScripts(page, shoot);

      await visitor.open("/register");
      await page.getByRole("button", { name: "Create account" }).click();
      await expect(page.getByLabel("E-mail")).toHaveAttribute("aria-invalid", "true");
      await shoot("register-with-errors");
      await visitor.open("/login");
      await visitor.fillIn(freshEmail(), "wrong password");
      await page.getByRole("button", { name: "Sign in" }).click();
      await expect(page.getByRole("alert")).toHaveText(/is wrong/);
      await shoot("login-refused");
      await context.setOffline(true);
      await expect(page.getByText("You are offline.")).toBeVisible();
      await shoot("offline");
      await context.setOffline(false);

      await visitor.register(`ann-${screen}-${colorScheme}-${Date.now() % 10_000}@example.com`);
      await shoot("token");
      await page.getByRole("button", { name: "Call the API" }).click();
      await expect(page.getByText("200 OK", { exact: true }).last()).toBeVisible();
      await page.getByText("Request and response").first().click();
      await page.getByRole("button", { name: "Keep a copy" }).click();
      await shoot("token-with-a-copy");

      await page.getByRole("link", { name: "Sessions" }).click();
      await expect(page.getByText("this device")).toBeVisible();
      await shoot("sessions");
      await page.getByRole("button", { name: "End other sessions" }).click();
      await shoot("sessions-dialog", { fullPage: false });
      await page.getByRole("button", { name: "Cancel" }).click();

      await failing(page, "**/api/account/sessions", () => visitor.open("/sessions"));
      await expect(page.getByRole("button", { name: "Try again" })).toBeVisible();
      await shoot("sessions-unavailable");
      await page.unrouteAll();

      await security(visitor, page, shoot);

      await visitor.open("/password");
      await shoot("password");
      await page.getByRole("button", { name: "Change password" }).click();
      await expect(page.getByLabel("Current password")).toHaveAttribute("aria-invalid", "true");
      await shoot("password-with-errors");

      await visitor.open("/settings");
      await expect(page.getByText("It is not confirmed yet")).toBeVisible();
      await shoot("settings");
      await page.getByRole("button", { name: "Delete account…" }).click();
      await shoot("settings-dialog", { fullPage: false });
      await visitor.open("/forgot");
      await page.getByLabel("E-mail").fill(freshEmail());
      await page.getByRole("button", { name: "Send the link" }).click();
      await expect(page.getByText("has no mail server yet")).toBeVisible();
      await shoot("forgot");
      for (const page of ["reset", "verify"]) {
        await visitor.open(`/${page}?token=x`);
        await shoot(page);
      }

      await signOutSome(request, 12);
      await visitor.open("/cluster");
      await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
      await expect(page.getByRole("table", { name: "Recent revocations" }).getByRole("row").nth(10)).toBeVisible();
      await shoot("servers");

      await visitor.open("/account");
      await page.getByRole("button", { name: "Keep a copy" }).click();
      await visitor.signOut();
      await expect(page).toHaveURL("/replay");
      await shoot("replay");
      await page.getByRole("button", { name: "Send the copy" }).click();
      await expect(page.getByText(/servers .*refuse it/)).toBeVisible();
      await shoot("replay-answered");

      await visitor.register();
      await visitor.signOut();
      await visitor.expectSignedOutInPlace();
      await shoot("signed-out");

      // Administrators are made where there is one server.
      const alone = new Visitor(page);
      const url = `http://127.0.0.1:${process.env.E2E_PORT}`;
      await alone.open(`${url}/login`);
      await alone.fillIn("admin@example.com", PASSWORD);
      await page.getByRole("button", { name: "Sign in" }).click();
      await expect(page.getByText("Signed in as admin@example.com")).toBeVisible();
      await alone.open(`${url}/admin`);
      await expect(page.getByRole("table", { name: "Users by address" })).toBeVisible();
      await shoot("admin");
      await page.getByRole("button", { name: "End all sessions of all users" }).click();
      await shoot("admin-dialog", { fullPage: false });
      await page.getByRole("button", { name: "Cancel" }).click();
      await alone.open(`${url}/cluster`);
      await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
      await shoot("server-alone");
    });
  }
}

/** The page Security in its states, at an address for which there are passkeys, and what the sign-in then asks for. */
async function security(visitor: Visitor, page: Page, shoot: (name: string, options?: { fullPage: boolean }) => Promise<void>) {
  await visitor.open("/security");
  await expect(page.getByText("Passkeys need a name in the address")).toBeVisible();
  await shoot("security-by-ip-address");

  const site = `http://localhost:${process.env.CLUSTER_PORT}`;
  const email = freshEmail();
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const options = { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } as const;
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options });
  await visitor.open(`${site}/login`);
  await shoot("login-with-passkeys");
  expect((await page.request.post(`${site}/api/auth/register`, { form: { email, password: PASSWORD } })).status()).toBe(200);
  await visitor.open(`${site}/security`);
  await expect(page.getByRole("heading", { name: "Recent activity" })).toBeVisible();
  await shoot("security-without");
  for (const name of ["Phone", "Blue security key"]) {
    await page.getByRole("button", { name: "Add a passkey…" }).click();
    await page.getByRole("dialog").getByLabel("Name").fill(name);
    if (name === "Phone") await shoot("security-add-passkey", { fullPage: false });
    await page.getByRole("button", { name: "Continue" }).click();
    await expect(page.getByRole("listitem").filter({ hasText: name })).toBeVisible();
    // One passkey for an account is all that a device makes.
    await cdp.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId }).catch(() => {});
    await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { ...options, transport: "usb" } });
  }
  await page.getByRole("button", { name: "Add an authenticator app" }).click();
  await expect(page.getByRole("img", { name: "QR code" })).toBeVisible();
  await shoot("security-set-up-app");
  const secret = await page.locator(".key").innerText();
  await page.getByLabel("Code", { exact: true }).fill(codeOf(secret));
  await page.getByRole("button", { name: "Use this app" }).click();
  await expect(page.getByRole("list", { name: "Recovery codes" })).toBeVisible();
  await shoot("security-recovery-codes");
  await page.getByRole("button", { name: "I have kept them" }).click();
  await shoot("security");
  await page.getByRole("button", { name: "Remove the authenticator app…" }).click();
  await page.getByRole("button", { name: "Remove app" }).click();
  await expect(page.getByRole("button", { name: "Use a passkey" })).toBeVisible();
  await shoot("sign-in-again", { fullPage: false });
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  await visitor.open(`${site}/account`);
  await visitor.signOut();
  await visitor.open(`${site}/login`);
  await visitor.fillIn(email, PASSWORD);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.getByLabel("Code")).toBeVisible();
  await shoot("login-with-a-code");
  await cdp.detach();
}

async function withoutScripts(page: Page, shoot: (name: string) => Promise<void>) {
  await page.route("**/pkg/*.js", (route) => route.abort());
  await page.goto("/login");
  await shoot("login-before-it-is-live");
  await page.unrouteAll();
}

async function failing(page: Page, path: string, act: () => Promise<void>) {
  await page.route(path, (route) => route.fulfill({ status: 503, json: { error: "temporarily_unavailable", message: "" } }));
  await act();
}

/** So that the page of the servers has something to show. */
async function signOutSome(request: APIRequestContext, count: number) {
  for (let done = 0; done < count; done++) {
    const form = { email: freshEmail(), password: PASSWORD, delivery: "body" };
    const { access_token } = await (await request.post("/api/auth/register", { form })).json();
    await request.post("/api/auth/logout", { headers: { Authorization: `Bearer ${access_token}` } });
  }
}
