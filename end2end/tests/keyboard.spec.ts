import type { Page } from "@playwright/test";
import { expect, freshEmail, PASSWORD, refused, test } from "./support";

/** Presses Tab until the focus is there, as someone without a mouse would. */
async function tabTo(page: Page, role: "button" | "link" | "textbox", name: string | RegExp, within = page.locator("body")) {
  const target = role === "textbox" ? within.getByLabel(name) : within.getByRole(role, { name });
  await expect(target.first()).toBeVisible();
  for (let presses = 0; presses < 60; presses++) {
    if (await target.first().evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`${role} ${name} is out of the keyboard's reach`);
}

const main = (page: Page) => page.locator("main");

test("a dialog that is opened again at once stays open", async ({ visitor, page }) => {
  await visitor.beginSession();
  await visitor.open("/sessions");
  const button = page.locator("button:not(dialog *)", { hasText: "End other sessions" });
  await button.click();
  const dialog = page.getByRole("dialog", { name: "End all other sessions" });
  await expect(dialog.getByRole("button", { name: "Cancel" })).toBeFocused();
  // Before the event of the one that was closed.
  const wasClosed = page.evaluate(() => new Promise((resolve) => document.querySelector("dialog[open]")!.addEventListener("close", () => resolve(null), { once: true })));
  await button.evaluate((button) => {
    document.querySelector<HTMLDialogElement>("dialog[open]")!.close();
    (button as HTMLElement).click();
  });
  await wasClosed;
  // What the event has set off is done.
  await page.evaluate(() => new Promise(requestAnimationFrame));
  await expect(dialog.getByRole("button", { name: "Cancel" })).toBeVisible();
});

test.describe("with the keyboard alone", () => {
  test.use({ expectedFault: refused(401, 422) });

  test("create an account, walk the token to its end, sign in again", async ({ visitor, page }) => {
    const email = freshEmail();
    await visitor.open("/");
    await tabTo(page, "link", "Create account", main(page));
    await page.keyboard.press("Enter");
    await expect(page).toHaveURL("/register");
    await tabTo(page, "textbox", "E-mail");
    await page.keyboard.type(email);
    await tabTo(page, "textbox", "Password");
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press("Enter");
    await visitor.expectAccountOf(email);

    await tabTo(page, "button", "Call the API");
    await page.keyboard.press("Enter");
    await expect(page.getByText("200 OK", { exact: true })).toBeVisible();
    await tabTo(page, "button", "Keep a copy");
    await page.keyboard.press("Space");
    await tabTo(page, "button", "Sign out", main(page));
    await page.keyboard.press("Enter");
    await expect(page).toHaveURL("/replay");
    await tabTo(page, "button", "Send the copy");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("row", { name: /401/ })).toBeVisible();

    await tabTo(page, "link", "Sign in again");
    await page.keyboard.press("Enter");
    await tabTo(page, "textbox", "E-mail");
    await page.keyboard.type(email);
    await tabTo(page, "textbox", "Password");
    await page.keyboard.type(PASSWORD);
    await tabTo(page, "button", "Sign in", main(page));
    await page.keyboard.press("Enter");
    await visitor.expectAccountOf(email);
  });

  test("end other sessions in a dialog that gives the focus back, change the password, choose the colours", async ({ visitor, page }) => {
    await visitor.register();
    await tabTo(page, "link", "Sessions", main(page));
    await page.keyboard.press("Enter");
    await tabTo(page, "button", "End other sessions");
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: "End all other sessions" });
    await expect(dialog.getByRole("button", { name: "Cancel" })).toBeFocused();
    await page.keyboard.press("Escape");
    await expect(dialog).toBeHidden();
    await expect(page.getByRole("button", { name: "End other sessions" })).toBeFocused();
    await page.keyboard.press("Enter");
    await tabTo(page, "button", "End other sessions", dialog);
    await page.keyboard.press("Enter");
    await visitor.expectToast(/All your other sessions have ended/);

    await tabTo(page, "link", "Password", main(page));
    await page.keyboard.press("Enter");
    await tabTo(page, "textbox", "Current password");
    await page.keyboard.type(PASSWORD);
    await tabTo(page, "textbox", "New password");
    await page.keyboard.type("another battery staple");
    await page.keyboard.press("Enter");
    await expect(page.getByText(/Your password has been changed/)).toBeVisible();

    await tabTo(page, "button", "Dark");
    await page.keyboard.press("Enter");
    await expect(page.locator("html")).toHaveAttribute("data-theme", "dark");
  });
});
