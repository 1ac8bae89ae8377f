import type { APIRequestContext, Browser } from "@playwright/test";
import { Device, expect, freshEmail, PASSWORD, test, Visitor } from "./support";

/** An account with two devices, two tabs each. */
async function twoDevices({ request, browser }: { request: APIRequestContext; browser: Browser }) {
  const email = freshEmail();
  const form = { email, password: PASSWORD, delivery: "body" };
  expect((await request.post("/api/auth/register", { form })).status()).toBe(200);
  return { email, here: await Device.signIn(browser, email), there: await Device.signIn(browser, email) };
}

test("signing out in one tab ends all tabs of this browser, and no other device", async ({ request, browser }) => {
  const { email, here, there } = await twoDevices({ request, browser });
  await here.first.signOut();
  for (const tab of here.tabs) await tab.expectEnded(/You have been signed out/);
  await there.expectSignedIn(email);
});

test("a session that is ended from another device says so there, in each tab, without a click", async ({ request, browser }) => {
  const { email, here, there } = await twoDevices({ request, browser });
  const { page } = here.first;
  await here.first.open("/sessions");
  const live = page.getByRole("list", { name: "Live sessions" });
  await expect(live.getByRole("listitem")).toHaveCount(3);
  await expect(live.getByRole("listitem").filter({ hasText: "this device" })).toContainText(/Chrome on/);
  // By this order: this one, then the one that was used last.
  await live.getByRole("listitem").nth(1).getByRole("button", { name: "End" }).click();
  await here.first.expectToast(/The session on Chrome on .+ has ended\. The server confirmed it in (\d+ ms|less than a millisecond)\./);
  await expect(live.getByRole("listitem").nth(1)).toContainText("Ended");
  await expect(live.getByRole("button", { name: /^End/ })).toHaveCount(1);
  for (const tab of there.tabs) await tab.expectEnded("this session was ended from another device");
  await here.expectSignedIn(email);
});

test("two quick clicks at one spot end one session, which stays in its place", async ({ visitor, page, request }) => {
  const email = await visitor.register();
  const form = { email, password: PASSWORD, delivery: "body" };
  for (let count = 0; count < 3; count++) expect((await request.post("/api/auth/login", { form })).status()).toBe(200);
  await visitor.open("/sessions");
  const rows = page.getByRole("list", { name: "Live sessions" }).getByRole("listitem");
  await expect(rows).toHaveCount(4);
  const { x, y, width, height } = (await rows.nth(1).getByRole("button").boundingBox())!;
  await page.mouse.click(x + width / 2, y + height / 2);
  await expect(rows.nth(1)).toContainText("Ended");
  await page.mouse.click(x + width / 2, y + height / 2);
  await visitor.expectToast(/has ended/);
  await page.reload();
  await expect(rows).toHaveCount(3);
});

test("the focus stays in its place when a session is ended by the keyboard", async ({ visitor, page, request }) => {
  const email = await visitor.register();
  const form = { email, password: PASSWORD, delivery: "body" };
  for (let count = 0; count < 2; count++) expect((await request.post("/api/auth/login", { form })).status()).toBe(200);
  await visitor.open("/sessions");
  const rows = page.getByRole("list", { name: "Live sessions" }).getByRole("listitem");
  await expect(rows.nth(0).getByRole("button")).toHaveText("Sign out");
  await rows.nth(1).getByRole("button").focus();
  await page.keyboard.press("Enter");
  await expect(rows.nth(1).getByText("Ended", { exact: true })).toBeFocused();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await expect(rows.nth(2).getByRole("button", { name: /^End/ })).toBeFocused();
});

test("a session signs itself out in the list as at the top", async ({ visitor, page }) => {
  await visitor.beginSession();
  await visitor.open("/sessions");
  await page.getByRole("listitem").filter({ hasText: "this device" }).getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
});

test("password managers see whose password a form is about", async ({ visitor, page }) => {
  const email = await visitor.beginSession();
  await visitor.open("/password");
  await expect(page.locator("form.narrow [autocomplete=username]")).toHaveValue(email);
});

test("ending all others asks first, and keeps this one", async ({ request, browser }) => {
  const { email, here, there } = await twoDevices({ request, browser });
  const { page } = here.first;
  await here.first.open("/sessions");
  await page.getByRole("button", { name: "End other sessions" }).click();
  const form = page.getByRole("dialog", { name: "End all other sessions" });
  await expect(form.getByRole("button", { name: "Cancel" })).toBeFocused();
  await form.getByRole("button", { name: "End other sessions" }).click();
  await here.first.expectToast(/All your other sessions have ended\. The server confirmed it in (\d+ ms|less than a millisecond)\./);
  await expect(page.getByRole("list", { name: "Live sessions" }).getByText("Ended", { exact: true })).toHaveCount(2);
  for (const tab of there.tabs) await tab.expectSignedOut();
  await here.expectSignedIn(email);
});

test("signing out everywhere ends this one, too", async ({ request, browser }) => {
  const { here, there } = await twoDevices({ request, browser });
  const { page } = here.first;
  await here.first.open("/sessions");
  await page.getByRole("button", { name: "Sign out everywhere" }).click();
  const form = page.getByRole("dialog", { name: "Sign out everywhere" });
  await form.getByRole("button", { name: "Sign out everywhere" }).click();
  await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
  for (const tab of [...here.tabs, ...there.tabs]) await tab.expectSignedOut();
});

test("changing the password ends the other device, and the old one is of no use", async ({ request, browser }) => {
  const { email, here, there } = await twoDevices({ request, browser });
  const { page } = here.first;
  await here.first.open("/password");
  await page.getByLabel("Current password").fill(PASSWORD);
  await page.getByLabel("New password").fill("another horse battery");
  await page.getByRole("button", { name: "Change password" }).click();
  await expect(page.getByText(/Your password has been changed/)).toBeVisible();
  for (const tab of there.tabs) await tab.expectEnded("your password was changed");
  await here.expectSignedIn(email);
  await here.first.open("/security");
  await expect(page.getByText("Password changed", { exact: true })).toBeVisible();
  await there.first.signIn(email);
  await expect(there.first.page.getByRole("alert")).toHaveText("The e-mail address or the password is wrong.");
  await there.first.signIn(email, "another horse battery");
  await there.first.expectAccountOf(email);
});

test("a stolen refresh token that comes back ends the session, and its owner is told why", async ({ request, browser }) => {
  const { email, here, there } = await twoDevices({ request, browser });
  const stolen = await here.refreshToken();
  // Two renewals later nobody can have lost an answer.
  for (const renewed of ["once", "2 times"]) {
    await here.first.page.getByRole("button", { name: "Renew now" }).click();
    await expect(here.first.page.getByText(`Renewed ${renewed}`)).toBeVisible();
  }
  const answer = await request.post("/api/auth/refresh", { form: { refresh_token: stolen } });
  expect(answer.status()).toBe(401);
  for (const tab of here.tabs) await tab.expectEnded("Your session was used from two places");
  await there.expectSignedIn(email);
  await there.first.open("/security");
  await expect(there.first.page.getByText(/may have been copied/)).toBeVisible();
});

test("a page for those who are signed in is come back to after signing in", async ({ visitor, page }) => {
  const email = await visitor.register();
  await visitor.open("/sessions");
  await visitor.signOut();
  await visitor.expectSignedOutInPlace();
  await page.getByRole("link", { name: "Sign in again" }).click();
  await expect(page).toHaveURL("/login?next=/sessions");
  await visitor.fillIn(email, PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page).toHaveURL("/sessions");
});

for (const next of ["//evil.test", "/\\evil.test", "https://evil.test", "javascript:alert(1)", "/%0d%0aSet-Cookie:a=b", "/" + "a".repeat(10_000)]) {
  test(`no other site is gone to after signing in: ${next.slice(0, 30)}`, async ({ visitor, page }) => {
    const email = await visitor.register();
    await visitor.signOut();
    await visitor.expectSignedOut();
    await visitor.open(`/login?next=${encodeURIComponent(next)}`);
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await visitor.expectAccountOf(email);
    // Signed in already, by the server.
    await visitor.open(`/login?next=${encodeURIComponent(next)}`);
    await expect(page).toHaveURL("/account");
  });
}

test("signing in as someone else ends the session that was there", async ({ visitor, page, context }) => {
  await visitor.open("/login");
  const other = new Visitor(await context.newPage());
  await other.open("/login");
  const ann = await visitor.register();
  const bearer = await visitor.bearer();
  // The other tab has noticed; a program may still post the form.
  await expect(other.page).toHaveURL("/account");
  await other.expectAccountOf(ann);
  const bob = freshEmail();
  expect((await page.request.post("/api/auth/register", { form: { email: bob, password: PASSWORD } })).status()).toBe(200);
  const headers = { Authorization: `Bearer ${bearer}` };
  expect((await page.request.post("/api/account/me", { headers })).status()).toBe(401);
  // No tab goes on as ann.
  for (const { page } of [visitor, other]) {
    const replaced = page.getByText("someone signed in again in this browser");
    await expect(page.getByText(`Signed in as ${bob}`).or(replaced)).toBeVisible();
  }
});
