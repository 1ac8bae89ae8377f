import { expect, PASSWORD, test } from "./support";

test("the tabs of the account are in one place on all of its pages", async ({ visitor, page }) => {
  const form = { email: "admin@example.com", password: PASSWORD };
  expect((await page.request.post("/api/auth/login", { form })).status()).toBe(200);
  const places = [];
  for (const path of ["/account", "/sessions", "/security", "/password", "/settings", "/admin"]) {
    await visitor.open(path);
    await expect(page.getByRole("navigation", { name: "Account" }).getByRole("link", { name: "Users" })).toBeVisible();
    const { x, y, width } = (await page.getByRole("navigation", { name: "Account" }).boundingBox())!;
    places.push({ x, y, width });
  }
  expect(new Set(places.map((place) => JSON.stringify(place))).size, JSON.stringify(places)).toBe(1);
});

test("the menu says who is signed in, leads to their pages, and closes", async ({ visitor, page }) => {
  const email = await visitor.register();
  const menu = page.locator(".user-menu");
  await expect(menu.locator("summary")).toContainText(email);
  await menu.locator("summary").focus();
  await page.keyboard.press("Enter");
  const sessions = menu.getByRole("link", { name: "Sessions" });
  await expect(sessions).toBeVisible();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Escape");
  await expect(sessions).toBeHidden();
  await expect(menu.locator("summary")).toBeFocused();
  await page.keyboard.press("Enter");
  await sessions.click();
  await expect(page).toHaveURL("/sessions");
  await expect(sessions).toBeHidden();
  await expect(menu.locator("summary")).toHaveAttribute("aria-current", "page");
  await menu.locator("summary").click();
  await page.getByRole("heading", { name: "Your sessions" }).click();
  await expect(sessions).toBeHidden();
});

test("the home page shows the two verdicts, as an example, and leads on", async ({ visitor, page }) => {
  await visitor.open("/");
  const example = page.getByRole("figure", { name: /^Example/ });
  await expect(example).toContainText(/An ordinary JWT check says\s*Still valid.*Hallpass says\s*Refused/s);
  const [text, shown] = [await page.getByRole("heading", { level: 1 }).boundingBox(), await example.boundingBox()];
  expect(shown!.x).toBeGreaterThan(text!.x + text!.width);
  await page.getByRole("main").getByRole("link", { name: "How it works" }).click();
  await expect(page.getByRole("heading", { name: "How a token lives and dies" })).toBeInViewport();
  await expect(page.getByRole("main").getByRole("link", { name: "API" })).toHaveAttribute("href", "/docs");
});

test("a message is closed by its button, and by a question", async ({ visitor, page, request }) => {
  const email = await visitor.register();
  const form = { email, password: PASSWORD, delivery: "body" };
  for (let count = 0; count < 2; count++) expect((await request.post("/api/auth/login", { form })).status()).toBe(200);
  await visitor.open("/sessions");
  const [end, toast] = [page.getByRole("main").getByRole("button", { name: /^End the session/ }), page.locator(".toast")];
  await end.first().click();
  await toast.getByRole("button", { name: "Close" }).click();
  await expect(toast).toHaveCount(0);
  await expect(page.getByRole("main")).toBeFocused();
  await end.first().click();
  await expect(toast).toBeVisible();
  await page.getByRole("button", { name: "End other sessions" }).click();
  await expect(page.getByRole("dialog")).toBeVisible();
  await expect(toast).toHaveCount(0);
});

test.describe("on a narrow phone", () => {
  test.use({ viewport: { width: 320, height: 640 } });

  test("the bar is one row", async ({ visitor, page }) => {
    await visitor.register();
    const [brand, end] = [page.locator(".brand"), page.getByRole("banner").getByRole("button", { name: "Sign out" })];
    const [left, right] = [await brand.boundingBox(), await end.boundingBox()];
    expect(Math.abs(left!.y + left!.height / 2 - right!.y - right!.height / 2)).toBeLessThan(5);
  });
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 375, height: 812 } });

  test("the countdown and the token come first", async ({ visitor, page }) => {
    await visitor.register();
    await expect(page.locator(".countdown")).toBeInViewport({ ratio: 1 });
    const [token, walk] = [page.locator(".jwt"), page.getByRole("heading", { name: "Steal your own token" })];
    expect((await token.boundingBox())!.y).toBeLessThan((await walk.boundingBox())!.y);
  });

  test("the logo and the link in the footer are large enough for a finger", async ({ visitor, page }) => {
    await visitor.register();
    for (const link of [page.locator(".brand"), page.getByRole("contentinfo").getByRole("link", { name: "API" })]) {
      const { width, height } = (await link.boundingBox())!;
      expect(Math.min(width, height)).toBeGreaterThanOrEqual(44);
    }
  });

  test("what a message covers can be scrolled out from under it", async ({ visitor, page, request }) => {
    const email = await visitor.register();
    const form = { email, password: PASSWORD, delivery: "body" };
    expect((await request.post("/api/auth/login", { form })).status()).toBe(200);
    await visitor.open("/sessions");
    await page.getByRole("button", { name: /^End the session/ }).click();
    const toast = page.locator(".toast");
    // With the focus it stays.
    await toast.getByRole("button", { name: "Close" }).focus();
    await expect(async () => {
      await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
      const [foot, message] = [await page.getByRole("contentinfo").boundingBox(), await toast.boundingBox()];
      expect(foot!.y + foot!.height).toBeLessThanOrEqual(message!.y);
    }).toPass();
  });
});

test("a page leaves no room for a message that it does not have", async ({ visitor, page }) => {
  await visitor.register();
  const gaps = await page.evaluate(() =>
    [...document.querySelectorAll("main [role=status]")]
      .filter((place) => !place.textContent!.trim())
      .map((place) => {
        const { marginTop, marginBottom } = getComputedStyle(place);
        return place.getBoundingClientRect().height + parseFloat(marginTop) + parseFloat(marginBottom);
      }),
  );
  expect(gaps.length).toBeGreaterThan(0);
  expect(Math.max(...gaps)).toBe(0);
});

test("a table that scrolls shows that there is more, and keeps its figures free of the scroll bar", async ({ visitor, page }) => {
  await visitor.beginSession();
  await visitor.open("/cluster");
  const frame = page.locator(".log-outs");
  await expect(frame).toHaveCSS("background-attachment", "local, scroll");
  await expect(frame.getByRole("columnheader", { name: "Time" })).toHaveCSS("padding-right", "16px");
});

test("the button that ends sessions does not look like the one that signs in", async ({ visitor, page }) => {
  await visitor.open("/login");
  const usual = await page.locator("form .button[type=submit]").last().evaluate((button) => getComputedStyle(button).backgroundColor);
  await visitor.beginSession();
  await visitor.open("/sessions");
  await page.getByRole("button", { name: "Sign out everywhere" }).click();
  const button = page.getByRole("dialog").getByRole("button", { name: "Sign out everywhere" });
  await expect(button).toBeVisible();
  expect(await button.evaluate((button) => getComputedStyle(button).backgroundColor)).not.toBe(usual);
});
