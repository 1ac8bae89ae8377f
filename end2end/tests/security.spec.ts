import { readFileSync } from "node:fs";
import type { CDPSession, Page } from "@playwright/test";
import { Server } from "./server";
import { Device, expect, expectNoViolations, freshEmail, PASSWORD, refused, test, Visitor } from "./support";
import { codeOf } from "./totp";

/** Opened by its name, because passkeys are for names; and administrators need a second factor, as they do by default. */
const server = new Server({ HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS: "100000" });
const ADMIN = "admin@example.com";

test.use({ baseURL: `http://localhost:${server.url.split(":")[1]}` });

let hasAdministrator = false;

test.beforeAll(async () => {
  // A worker that comes back to this file finds what it has made before.
  if (!hasAdministrator) {
    server.run(["user", "add", ADMIN], PASSWORD);
    server.run(["user", "role", ADMIN, "admin"]);
    hasAdministrator = true;
  }
  await server.start();
});

test.afterAll(() => server.kill());

/** A device with a fingerprint reader, whose finger is always there. */
async function addAuthenticator(page: Page): Promise<{ cdp: CDPSession; authenticatorId: string }> {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const options = {
    protocol: "ctap2" as const,
    transport: "internal" as const,
    hasResidentKey: true,
    hasUserVerification: true,
    isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options });
  return { cdp, authenticatorId };
}

/** A user with a session that has just begun. */
async function openSecurity(visitor: Visitor): Promise<string> {
  const email = await visitor.beginSession();
  await visitor.open("/security");
  await expect(visitor.page.getByRole("heading", { name: "Recent activity" })).toBeVisible();
  return email;
}

async function addPasskey({ page }: Visitor, name = "Phone") {
  await page.getByRole("button", { name: "Add a passkey…" }).click();
  await page.getByRole("dialog", { name: "Add a passkey" }).getByLabel("Name").fill(name);
  await page.getByRole("button", { name: "Continue" }).click();
  await expect(rows(page).filter({ hasText: name })).toBeVisible();
}

const rows = (page: Page) => page.getByRole("list", { name: "Passkeys" }).getByRole("listitem");

/** Adds an authenticator app. Returns its secret and the recovery codes. */
async function addApp({ page }: Visitor): Promise<{ secret: string; codes: string[] }> {
  await page.getByRole("button", { name: "Add an authenticator app" }).click();
  await expect(page.getByRole("img", { name: "QR code" })).toBeVisible();
  const secret = await page.locator(".key").innerText();
  await page.getByLabel("Code", { exact: true }).fill(codeOf(secret));
  await page.getByRole("button", { name: "Use this app" }).click();
  const list = page.getByRole("list", { name: "Recovery codes" });
  await expect(list.getByRole("listitem")).toHaveCount(10);
  return { secret, codes: await list.getByRole("listitem").allInnerTexts() };
}

async function signInWithCode(visitor: Visitor, email: string, code: string) {
  await visitor.signIn(email);
  await expect(visitor.page.getByLabel("Code")).toBeFocused();
  await visitor.page.keyboard.type(code);
  await visitor.page.keyboard.press("Enter");
}

const again = (page: Page) => page.getByRole("dialog", { name: "Confirm that it is you" });

/** Signs in again, in the dialog that asks for it. */
async function signInAgain(page: Page, code?: string) {
  await expect(again(page).getByLabel("Your password")).toBeFocused();
  await page.keyboard.type(PASSWORD);
  if (code) await again(page).getByLabel("Code").fill(code);
  await page.keyboard.press("Enter");
  await expect(again(page)).toBeHidden();
}

/** Has the server answer the next of these calls as it does for a session that began long ago. */
async function makeSessionOld(page: Page, path: string) {
  const json = { error: "insufficient_user_authentication", message: "", acr_values: "aal1", max_age: 300 };
  await page.route(path, (route) => route.fulfill({ status: 403, json }), { times: 1 });
}

/** A mark that is gone when the page is loaded again. */
async function mark(page: Page) {
  await page.evaluate(() => document.body.setAttribute("data-mark", ""));
}

// While it is loaded again, it cannot be asked.
const isMarked = (page: Page) => page.evaluate(() => document.body.hasAttribute("data-mark")).catch(() => false);

test.describe("a passkey", () => {
  // A call that is under way when the user signs out is refused.
  test.use({ expectedFault: refused(401) });

  test("is added, and signs in without an address, by the button and by a suggestion", async ({ visitor, page }) => {
    await addAuthenticator(page);
    const email = await openSecurity(visitor);
    await expect(page.getByText("No passkeys yet.")).toBeVisible();
    await addPasskey(visitor);
    await visitor.expectToast(/The passkey “Phone” was added, and all your other sessions have ended\. The server confirmed it in/);
    await expect(rows(page)).toContainText("Not used yet");
    await expect(rows(page)).toContainText("On one device only");
    await expect(page.getByText("Passkey added", { exact: true })).toBeVisible();

    await visitor.signOut();
    await visitor.open("/login");
    await page.getByRole("button", { name: "Sign in with a passkey" }).click();
    await visitor.expectAccountOf(email);
    await visitor.open("/security");
    await expect(rows(page)).toContainText(/Last used (just now|\d+ s ago)/);
    // The last answer that the page waits for.
    await expect(page.getByText("Passkey added", { exact: true })).toBeVisible();

    await visitor.signOut();
    await visitor.open("/login");
    // The virtual device chooses at once what a person would choose from the list.
    await page.getByLabel("E-mail").click();
    await visitor.expectAccountOf(email);
  });
});

test.describe("a request for a passkey that is canceled", () => {
  test.use({ expectedFault: refused(401) });

  test("says so calmly, and leaves the form as it was", async ({ visitor, page }) => {
    const { cdp, authenticatorId } = await addAuthenticator(page);
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
    await visitor.open("/login");
    await page.getByRole("button", { name: "Sign in with a passkey" }).click();
    const note = page.getByRole("alert").getByText("No passkey was used: the request was canceled, or took too long.");
    await expect(note).toHaveClass("note");
    await visitor.fillIn("nobody@example.com", PASSWORD);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await expect(page.getByRole("alert")).toHaveText(/is wrong/);
  });
});

test("a passkey is renamed and removed, which signs out another device, and is of no use then", async ({ visitor, page, browser }) => {
  await addAuthenticator(page);
  const email = await openSecurity(visitor);
  await addPasskey(visitor);
  const other = await Device.signIn(browser, email);
  await page.getByRole("button", { name: "Rename Phone" }).click();
  const rename = page.getByRole("dialog", { name: "Rename “Phone”" });
  await expect(rename.getByLabel("Name")).toBeFocused();
  await page.keyboard.type("Old phone");
  await page.keyboard.press("Enter");
  await expect(rows(page)).toContainText("Old phone");
  await expect(page.getByRole("button", { name: "Rename Old phone" })).toBeFocused();

  await page.getByRole("button", { name: "Remove Old phone" }).click();
  const question = page.getByRole("dialog", { name: "Remove “Old phone”" });
  await expect(question.getByRole("button", { name: "Cancel" })).toBeFocused();
  await question.getByRole("button", { name: "Remove passkey" }).click();
  await expect(page.getByText("No passkeys yet.")).toBeVisible();
  await expect(page.getByRole("heading", { name: "Passkeys" })).toBeFocused();
  await visitor.expectToast(/was removed, and all your other sessions have ended\. The server confirmed it in/);
  for (const tab of other.tabs) await tab.expectEnded("a passkey was added to your account or removed");
});

test.describe("with an authenticator app", () => {
  test.use({ expectedFault: refused(401, 403, 422) });

  test("its code is asked for once, and a recovery code works once", async ({ visitor, page, browser }) => {
    const email = await openSecurity(visitor);
    const other = await Device.signIn(browser, email);
    await page.getByRole("button", { name: "Add an authenticator app" }).click();
    await expect(page.getByRole("heading", { name: "Set up the app" })).toBeFocused();
    await page.getByLabel("Code", { exact: true }).fill("000000");
    await page.getByRole("button", { name: "Use this app" }).click();
    await expect(page.getByLabel("Code", { exact: true })).toHaveAccessibleDescription(/The code is wrong/);
    await page.getByRole("button", { name: "Cancel" }).click();
    const { secret, codes } = await addApp(visitor);
    await visitor.expectToast(/The authenticator app is in use, and all your other sessions have ended\. The server confirmed it in/);
    for (const tab of other.tabs) await tab.expectEnded("an authenticator app or a passkey was added");
    await expect(page.getByRole("heading", { name: "Recovery codes" })).toBeFocused();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download" }).click();
    const file = readFileSync(await (await download).path(), "utf8");
    for (const code of codes) expect(file).toContain(code);
    await page.getByRole("button", { name: "I have kept them" }).click();
    await expect(page.getByText("You have 10 that were not used.")).toBeVisible();

    await visitor.signOut();
    const code = codeOf(secret, 1);
    await signInWithCode(visitor, email, code);
    await visitor.expectAccountOf(email);
    await visitor.signOut();
    await signInWithCode(visitor, email, code);
    await expect(page.getByRole("alert")).toHaveText("The code is wrong, or was used before. Wait for the next one.");
    await expect(page.getByLabel("Code")).toBeFocused();
    // What was typed before is still there.
    await expect(page.getByLabel("E-mail")).toHaveValue(email);
    await page.keyboard.type(codes[0].toUpperCase());
    await page.keyboard.press("Enter");
    await visitor.expectAccountOf(email);
    await visitor.signOut();
    await signInWithCode(visitor, email, codes[0]);
    await expect(page.getByRole("alert")).toHaveText(/was used before/);
    await page.keyboard.type(codes[1]);
    await page.keyboard.press("Enter");
    await visitor.expectAccountOf(email);
    await visitor.open("/security");
    await expect(page.getByText("You have 8 that were not used.")).toBeVisible();

    await page.getByRole("button", { name: "Make new recovery codes…" }).click();
    await page.getByRole("button", { name: "Make new codes" }).click();
    await expect(page.getByRole("list", { name: "Recovery codes" }).getByRole("listitem")).toHaveCount(10);
    await expect(page.getByRole("list", { name: "Recovery codes" })).not.toContainText(codes[2]);
  });

  test("the user signs in again and goes on, in this tab; the other one loads again", async ({ visitor, page, context }) => {
    const email = await openSecurity(visitor);
    const other = new Visitor(await context.newPage());
    await other.open("/sessions");
    await page.bringToFront();
    const { secret } = await addApp(visitor);
    await page.getByRole("button", { name: "I have kept them" }).click();
    for (const tab of [page, other.page]) await mark(tab);

    // The session began with the password alone.
    await page.getByRole("button", { name: "Remove the authenticator app…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove app" }).click();
    await expect(again(page)).toContainText("with your second factor within the last 5 minutes");
    await page.keyboard.type("not the password");
    await again(page).getByLabel("Code").fill(codeOf(secret, 1));
    await page.keyboard.press("Enter");
    await expect(again(page).getByLabel("Your password")).toHaveAccessibleDescription(/wrong|not your password/);
    await again(page).getByLabel("Your password").fill(PASSWORD);
    await again(page).getByLabel("Code").fill("123");
    await page.keyboard.press("Enter");
    await expect(again(page).getByLabel("Code")).toHaveAccessibleDescription(/The code is wrong/);
    await again(page).getByLabel("Code").fill(codeOf(secret, 1));
    await page.keyboard.press("Enter");
    await visitor.expectToast(/The authenticator app was removed, and all your other sessions have ended\. The server confirmed it/);
    await expect(page.getByRole("button", { name: "Add an authenticator app" })).toBeVisible();
    expect(await isMarked(page)).toBe(true);
    await expect.poll(() => isMarked(other.page)).toBe(false);
    await expect(other.page.getByText("this device")).toBeVisible();
    // Longer than a page waits for the cookies of the session that has replaced its own.
    await page.waitForTimeout(4_000);
    expect(await isMarked(page)).toBe(true);

    // Both follow the stream of the new session.
    const token = await visitor.bearer();
    expect(await other.bearer()).toBe(token);
    const begun = await fetch(new URL("/api/auth/login", page.url()), {
      method: "POST",
      body: new URLSearchParams({ email, password: PASSWORD, delivery: "body" }),
    });
    const { access_token } = await begun.json();
    const end = await fetch(new URL("/api/account/logout_everywhere", page.url()), {
      method: "POST",
      headers: { authorization: `Bearer ${access_token}` },
      body: new URLSearchParams({ keep_current: "true" }),
    });
    expect(end.status).toBe(200);
    await visitor.expectEnded("signed out everywhere, from another device");
    await other.expectEnded("signed out everywhere, from another device");
  });

  test("in two visible windows, that of the call stays, whichever has the connection", async ({ visitor, page, context }) => {
    await openSecurity(visitor);
    // The one that was opened first has the connection of all.
    const second = new Visitor(await context.newPage());
    await second.open("/security");
    for (const tab of [page, second.page]) await mark(tab);
    await makeSessionOld(second.page, "**/api/account/begin_totp");
    await second.page.getByRole("button", { name: "Add an authenticator app" }).click();
    await signInAgain(second.page);
    await expect(second.page.getByRole("heading", { name: "Set up the app" })).toBeVisible();
    await expect.poll(() => isMarked(page)).toBe(false);
    await expect(page.getByRole("heading", { name: "Recent activity" })).toBeVisible();
    // Longer than a page waits for the cookies of the session that has replaced its own.
    await second.page.waitForTimeout(4_000);
    expect(await isMarked(second.page)).toBe(true);
    await expect(second.page.getByRole("heading", { name: "Set up the app" })).toBeVisible();
  });

  test("a user who does not sign in again changes nothing, with the keyboard alone", async ({ visitor, page }) => {
    await openSecurity(visitor);
    await makeSessionOld(page, "**/api/account/begin_totp");
    const button = page.getByRole("button", { name: "Add an authenticator app" });
    await button.focus();
    await page.keyboard.press("Enter");
    await expect(again(page).getByLabel("Your password")).toBeFocused();
    await page.keyboard.press("Escape");
    await expect(again(page)).toBeHidden();
    await expect(page.getByRole("alert").getByText("Nothing was changed, because you did not sign in again.")).toBeVisible();
    await expect(button).toBeFocused();
    await makeSessionOld(page, "**/api/account/begin_totp");
    await page.keyboard.press("Enter");
    await signInAgain(page);
    await expect(page.getByRole("heading", { name: "Set up the app" })).toBeFocused();
  });

  test("password managers see whose password the dialog is about", async ({ visitor, page }) => {
    const email = await openSecurity(visitor);
    await makeSessionOld(page, "**/api/account/begin_totp");
    await page.getByRole("button", { name: "Add an authenticator app" }).click();
    await expect(page.locator("dialog[open] [autocomplete=username]")).toHaveValue(email);
  });

  test("a session that ends meanwhile closes the dialog", async ({ visitor, page }) => {
    await openSecurity(visitor);
    await makeSessionOld(page, "**/api/account/begin_totp");
    await page.getByRole("button", { name: "Add an authenticator app" }).click();
    await expect(again(page)).toBeVisible();
    const headers = { authorization: `Bearer ${await visitor.bearer()}` };
    await fetch(new URL("/api/auth/logout", page.url()), { method: "POST", headers });
    await visitor.expectEnded(/You have been signed out/);
    await expect(again(page)).toBeHidden();
  });
});

test.describe("an administrator", () => {
  test.use({ expectedFault: refused(403) });

  test("without a second factor is asked to add one, and with a passkey goes on", async ({ visitor, page, request }) => {
    const email = freshEmail();
    expect((await request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
    await addAuthenticator(page);
    await visitor.signIn(ADMIN);
    await visitor.expectAccountOf(ADMIN);
    const disable = async () => {
      await visitor.open("/admin");
      await page.getByLabel("E-mail address").fill(email);
      await page.getByRole("button", { name: "Find" }).click();
      await page.getByRole("button", { name: `Disable ${email}` }).click();
      await page.getByRole("dialog", { name: `Disable ${email}?` }).getByRole("button", { name: "Disable" }).click();
    };
    await disable();
    await expect(again(page)).toContainText("Administrators need a second factor");
    await expect(again(page).getByLabel("Your password")).toHaveCount(0);
    await again(page).getByRole("link", { name: "Add a second factor" }).click();
    await expect(page).toHaveURL("/security");
    await expect(page.getByRole("dialog")).toHaveCount(0);
    await addPasskey(visitor);

    await disable();
    const use = again(page).getByRole("button", { name: "Use a passkey" });
    await expect(use).toBeFocused();
    // The password alone would not be enough.
    await expect(again(page).getByLabel("Your password")).toHaveCount(0);
    await page.keyboard.press("Enter");
    await visitor.expectToast(new RegExp(`${email} is disabled\\. The server confirmed it in`));
    // For a quarter of an hour nothing is asked again.
    await page.getByRole("button", { name: `Enable ${email}` }).click();
    await visitor.expectToast(new RegExp(`${email} is enabled`));
  });
});

test("where the site was opened by an IP address, it says what passkeys need", async ({ visitor, page }) => {
  const url = `http://${server.url}`;
  await visitor.open(`${url}/login`);
  await expect(page.getByRole("button", { name: "Sign in with a passkey" })).toBeHidden();
  expect((await page.request.post(`${url}/api/auth/register`, { form: { email: freshEmail(), password: PASSWORD } })).status()).toBe(200);
  await visitor.open(`${url}/security`);
  await expect(page.getByText("Passkeys need a name in the address, such as localhost")).toBeVisible();
  await expect(page.getByRole("button", { name: "Add a passkey…" })).toHaveCount(0);
});

test("without passkeys in the browser the page says so, and has no button for them", async ({ visitor, page }) => {
  await page.addInitScript(() => Reflect.deleteProperty(window, "PublicKeyCredential"));
  await visitor.open("/login");
  await expect(page.getByRole("button", { name: "Sign in with a passkey" })).toBeHidden();
  await openSecurity(visitor);
  await expect(page.getByText("This browser cannot add passkeys here.")).toBeVisible();
});

test.describe("without scripts", () => {
  test.use({ javaScriptEnabled: false });

  test("the code is entered with the address and the password", async ({ page, browser, baseURL }) => {
    const context = await browser.newContext({ javaScriptEnabled: true, baseURL });
    const owner = new Visitor(await context.newPage());
    const email = await openSecurity(owner);
    const { codes } = await addApp(owner);
    const fillIn = async (code?: string) => {
      await page.getByLabel("E-mail").fill(email);
      await page.getByLabel("Password").fill(PASSWORD);
      if (code) await page.getByLabel("Code").fill(code);
      await page.getByRole("button", { name: "Sign in", exact: true }).click();
    };
    await page.goto("/login");
    await expect(page.getByLabel("Code")).toBeHidden();
    await expect(page.getByRole("button", { name: "Sign in with a passkey" })).toBeHidden();
    await fillIn();
    await expect(page.getByText("Enter the code from your authenticator app, or a recovery code.")).toBeVisible();
    await fillIn("wrong");
    await expect(page.getByRole("alert")).toHaveText(/The code is wrong/);
    await fillIn(codes[0]);
    await expect(page).toHaveURL("/account");
  });
});

for (const viewport of [{ width: 1280, height: 900 }, { width: 320, height: 640 }]) {
  test.describe(`${viewport.width} px`, () => {
    test.use({ viewport, expectedFault: refused(403) });

    test("axe finds nothing, nothing overflows, in the states of the page and the dialog", async ({ visitor, page }) => {
      const check = async (state: string) => {
        for (const colorScheme of ["light", "dark"] as const) {
          await page.emulateMedia({ colorScheme });
          await expectNoViolations(page);
        }
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect(overflow, state).toBeLessThanOrEqual(0);
      };
      await addAuthenticator(page);
      await openSecurity(visitor);
      await check("nothing added");
      await page.getByRole("button", { name: "Add a passkey…" }).click();
      await check("adding a passkey");
      await page.getByRole("button", { name: "Cancel" }).click();
      await addPasskey(visitor, "A security key with quite a long name, which takes some room");
      await check("a passkey");
      await page.getByRole("button", { name: /^Remove A/ }).click();
      await check("removing it");
      await page.getByRole("button", { name: "Cancel" }).click();
      await page.getByRole("button", { name: "Add an authenticator app" }).click();
      await expect(page.getByRole("img", { name: "QR code" })).toBeVisible();
      await check("setting up an app");
      await page.getByRole("button", { name: "Cancel" }).click();
      await addApp(visitor);
      await check("new recovery codes");
      await page.getByRole("button", { name: "I have kept them" }).click();
      await page.getByRole("button", { name: "Remove the authenticator app…" }).click();
      await page.getByRole("button", { name: "Remove app" }).click();
      await expect(again(page).getByRole("button", { name: "Use a passkey" })).toBeVisible();
      await check("signing in again");
    });
  });
}
