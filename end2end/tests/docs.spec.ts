import { type Page } from "@playwright/test";
import { expect, test } from "./support";

/** The calls whose descriptions are open. */
const open = (page: Page) => page.locator("details[open] h3").allTextContents();

test("the page about the API is short, and opens what is clicked", async ({ page }) => {
  await page.goto("/docs");
  await page.setViewportSize({ width: 1280, height: 800 });
  expect(await page.evaluate(() => document.documentElement.scrollHeight)).toBeLessThan(10_000);
  expect(await open(page)).toEqual([]);
  await page.locator("summary", { hasText: /\/api\/auth\/login(?!_)/ }).click();
  expect(await open(page)).toEqual(["POST /api/auth/login"]);
  const list = page.getByRole("navigation", { name: "Calls" });
  await list.getByRole("link", { name: "/api/account/me" }).click();
  await expect(page.locator("#account_me")).toBeInViewport();
  await expect.poll(() => open(page)).toEqual(["POST /api/auth/login", "POST /api/account/me"]);
  // The list stays in view beside the calls.
  await expect(list).toBeInViewport();
  await page.locator("#account_me").getByRole("link", { name: "Back to the list" }).click();
  await expect(page).toHaveURL("/docs#calls");
});

for (const javaScriptEnabled of [true, false]) {
  test.describe(javaScriptEnabled ? "with scripts" : "without scripts", () => {
    test.use({ javaScriptEnabled });

    test("a link to a call or to a type opens it", async ({ page }) => {
      await page.goto("/docs#auth_refresh");
      await expect(page.locator("#auth_refresh")).toBeInViewport();
      await page.locator("#auth_refresh").getByRole("link", { name: "TokenResponse" }).click();
      await expect(page.locator("#TokenResponse")).toBeInViewport();
      const summary = page.locator("details", { has: page.locator("#TokenResponse") }).locator("summary");
      await expect(summary).toBeInViewport();
    });
  });
}

test("no identifier is broken within a word, and nothing scrolls sideways", async ({ page }) => {
  for (const width of [1280, 375]) {
    await page.setViewportSize({ width, height: 800 });
    await page.goto("/docs");
    const found = await page.evaluate(() => {
      document.querySelectorAll("details").forEach((details) => (details.open = true));
      const broken: string[] = [];
      // Each text node in an identifier is one word.
      for (const code of document.querySelectorAll("th code, h3 code, .calls code")) {
        const texts = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
          const range = document.createRange();
          range.selectNodeContents(texts.currentNode);
          const lines = new Set([...range.getClientRects()].map(({ top }) => Math.round(top)));
          // A line may break at a space and after a hyphen.
          if (lines.size > 1 && !/[ -]/.test(range.toString())) broken.push(range.toString());
        }
      }
      return { broken, overflow: document.documentElement.scrollWidth - innerWidth };
    });
    expect(found, `${width}`).toEqual({ broken: [], overflow: 0 });
  }
});

test("commands use the address of the page, and are copied by a button", async ({ page, context, baseURL }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto("/docs#auth_login");
  await expect(page.locator(".copyable").first()).toContainText(`B=${baseURL}`);
  const command = page.locator("#auth_login .copyable");
  await command.getByRole("button", { name: "Copy" }).click();
  await expect(command.getByRole("button")).toHaveText("Copied");
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied).toMatch(/^curl -s "\$B\/api\/auth\/login"/);
  expect(copied).toBe(await command.locator("pre").textContent());
});
