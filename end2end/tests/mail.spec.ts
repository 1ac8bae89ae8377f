import { readFileSync } from "node:fs";
import { linkIn, mailTo } from "./mailbox";
import { Device, expect, freshEmail, PASSWORD, refused, test, Visitor } from "./support";

const NEW_PASSWORD = "staple battery horse";

test("a forgotten password is replaced by the link in a mail, which ends every session at once", async ({ visitor, page, browser }) => {
  const email = await visitor.beginSession();
  const laptop = await Device.signIn(browser, email, { path: "/sessions" });
  await page.context().clearCookies();
  await visitor.open("/login");
  await page.getByLabel("E-mail").fill(email);
  await page.getByRole("link", { name: "Forgot your password?" }).click();
  await visitor.expectLive();
  // The typed address has come along.
  await expect(page.getByLabel("E-mail")).toHaveValue(email);
  await page.getByRole("button", { name: "Send the link" }).click();
  await expect(page.getByText("a mail is on its way")).toBeVisible();

  // The mail is read on another device than the one that asked.
  const phone = new Visitor(await (await browser.newContext()).newPage());
  await phone.open(await linkIn(email, /^Reset/));
  await phone.page.getByLabel("New password").fill(NEW_PASSWORD);
  await phone.page.getByRole("button", { name: "Change password" }).click();
  await expect(phone.page.getByText(/every device has been signed out. The server confirmed it in/)).toBeVisible();
  for (const tab of laptop.tabs) await tab.expectEnded(/because your password was changed/);
  await phone.page.getByRole("link", { name: "Sign in" }).last().click();
  await phone.expectLive();
  await phone.fillIn(email, NEW_PASSWORD);
  await phone.page.getByRole("button", { name: "Sign in" }).click();
  await phone.expectAccountOf(email);
  await mailTo(email, /password was reset/);
});

test.describe("a link that is dead", () => {
  test.use({ expectedFault: refused(401) });

  test("says so, and leads to another", async ({ visitor, page }) => {
    const email = await visitor.beginSession();
    const body = { form: { email } };
    expect((await page.request.post("/api/auth/forgot_password", body)).status()).toBe(200);
    const link = await linkIn(email, /^Reset/);
    for (const path of [link.slice(0, -1), link.replace(/token=.*/, "token=x")]) {
      await visitor.open(path);
      await page.getByLabel("New password").fill(NEW_PASSWORD);
      await page.getByRole("button", { name: "Change password" }).click();
      await expect(page.getByRole("alert")).toHaveText(/used before, or is too old/);
    }
    await page.getByRole("link", { name: "Ask for another link" }).click();
    await expect(page).toHaveURL("/forgot");
    await visitor.open("/reset");
    await expect(page.getByText("The link is not complete.")).toBeVisible();
    await visitor.open("/verify");
    await expect(page.getByText("The link is not complete.")).toBeVisible();
  });
});

test.describe("a password that is not accepted", () => {
  test.use({ expectedFault: refused(422) });

  test("can be replaced by another, with the same link and the keyboard alone", async ({ visitor, page }) => {
    const email = await visitor.beginSession();
    await page.request.post("/api/auth/forgot_password", { form: { email } });
    await visitor.open(await linkIn(email, /^Reset/));
    await page.getByLabel("New password").focus();
    await page.keyboard.type("short");
    await page.keyboard.press("Enter");
    await expect(page.getByText("Use at least 8 characters.")).toBeVisible();
    await expect(page.getByLabel("New password")).toBeFocused();
    await page.keyboard.type(" and then longer");
    await page.keyboard.press("Enter");
    await expect(page.getByText("Your password has been changed")).toBeVisible();
  });
});

test.describe("without scripts", () => {
  test.use({ javaScriptEnabled: false });

  test("a password can be reset and an address confirmed", async ({ page }) => {
    const email = freshEmail();
    expect((await page.request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
    await page.goto("/forgot");
    await page.getByLabel("E-mail").fill(email);
    await page.getByRole("button", { name: "Send the link" }).click();
    await expect(page.getByText("a mail is on its way")).toBeVisible();
    const link = await linkIn(email, /^Reset/);
    await page.goto(link);
    await page.getByLabel("New password").fill("short");
    await page.getByRole("button", { name: "Change password" }).click();
    await expect(page.getByText("Use a password that is long enough")).toBeVisible();
    await page.getByLabel("New password").fill(NEW_PASSWORD);
    await page.getByRole("button", { name: "Change password" }).click();
    await expect(page.getByText("Your password has been changed")).toBeVisible();
    expect(page.url()).not.toContain("token");
    await page.goto(link);
    await page.getByLabel("New password").fill(NEW_PASSWORD);
    await page.getByRole("button", { name: "Change password" }).click();
    await expect(page.getByText("used before, or is too old")).toBeVisible();
    await page.goto(await linkIn(email, /^Confirm/));
    await page.getByRole("button", { name: "Confirm" }).click();
    await expect(page.getByText("It is done.")).toBeVisible();
  });
});

test("a new user confirms the address, and the settings show it", async ({ visitor, page }) => {
  const email = await visitor.register();
  await page.locator(".user-menu summary").click();
  await page.getByRole("banner").getByRole("link", { name: "Settings" }).click();
  await expect(page.getByText("It is not confirmed yet")).toBeVisible();
  await visitor.open(await linkIn(email, /^Confirm/));
  await page.getByRole("button", { name: "Confirm" }).click();
  await expect(page.getByText("Your address is confirmed.")).toBeVisible();
  await page.getByRole("link", { name: "Go on" }).click();
  await expect(page).toHaveURL("/settings");
  await expect(page.getByText(`Your address is ${email}`)).toBeVisible();
  await expect(page.getByText("It is not confirmed yet")).toBeHidden();
});

test("the address is changed by a mail to the new one, and changed back by a mail to the old one", async ({ visitor, page, browser }) => {
  const email = await visitor.beginSession();
  const other = await Device.signIn(browser, email);
  const next = freshEmail();
  await visitor.open(await linkIn(email, /^Confirm/));
  await page.getByRole("button", { name: "Confirm" }).click();
  await expect(page.getByText("Your address is confirmed.")).toBeVisible();
  await visitor.open("/settings");
  await page.getByLabel("New address").fill(next);
  await page.getByRole("button", { name: "Change address" }).click();
  await expect(page.getByText(`A mail to ${next} is on its way`)).toBeVisible();

  const reader = new Visitor(await (await browser.newContext()).newPage());
  await reader.open(await linkIn(next, /^Confirm your new/));
  await reader.page.getByRole("button", { name: "Confirm" }).click();
  await expect(reader.page.getByText("This is the address of your account now")).toBeVisible();
  for (const tab of [visitor, ...other.tabs]) await tab.expectEnded(/address of your account was changed/);
  await reader.signIn(next);
  await reader.expectAccountOf(next);

  await visitor.open(await linkIn(email, /^The address of your/));
  await page.getByRole("button", { name: "Confirm" }).click();
  await expect(page.getByText("the password is void")).toBeVisible();
  await reader.expectEnded(/address of your account was changed/);
  await page.getByRole("link", { name: "Choose a new password" }).click();
  await expect(page).toHaveURL("/forgot");
});

test.describe("the end of an account", () => {
  test.use({ expectedFault: refused(401, 422) });

  test("comes after a question, and signs out every device", async ({ visitor, page, browser }) => {
    const email = await visitor.beginSession();
    const other = await Device.signIn(browser, email);
    await visitor.open("/settings");
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download your data" }).click();
    const data = JSON.parse(readFileSync(await (await download).path(), "utf8"));
    expect(data.profile.email).toBe(email);
    expect(data.sessions).toHaveLength(2);

    await page.getByRole("button", { name: "Delete account…" }).click();
    const dialog = page.getByRole("dialog", { name: `Delete the account ${email}` });
    await expect(dialog.getByRole("button", { name: "Cancel" })).toBeFocused();
    await dialog.getByRole("button", { name: "Delete account" }).click();
    await visitor.expectSignedOutInPlace();
    for (const tab of other.tabs) await tab.expectEnded(/this account was deleted/);
    await visitor.signIn(email);
    await expect(page.getByRole("alert")).toHaveText(/is wrong/);
  });
});
