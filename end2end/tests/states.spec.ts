import { expect, freshEmail, PASSWORD, refused, test } from "./support";

test("the colours that were chosen are there from the first byte, on every page", async ({ visitor, page }) => {
  await page.emulateMedia({ colorScheme: "light" });
  await visitor.open("/");
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.getByRole("button", { name: "Dark" }).click();
  const dark = await background();
  expect(dark).not.toBe(light);
  expect(await (await page.request.get("/login")).text()).toContain('data-theme="dark"');
  await visitor.open("/login");
  expect(await background()).toBe(dark);
  await expect(page.getByRole("button", { name: "Dark" })).toHaveAttribute("aria-pressed", "true");
  await page.getByRole("button", { name: "System" }).click();
  expect(await background()).toBe(light);
  expect(await (await page.request.get("/login")).text()).not.toContain("data-theme");
});

test("a device without a network is told so, until it has one", async ({ visitor, page, context }) => {
  await visitor.open("/login");
  await context.setOffline(true);
  await expect(page.getByText("You are offline.")).toBeVisible();
  await context.setOffline(false);
  await expect(page.getByText("You are offline.")).toHaveCount(0);
});

test("what a page waits for is said, and that it takes long", async ({ visitor, page }) => {
  let answer = () => {};
  const asked = new Promise<void>((resolve) => (answer = resolve));
  await visitor.register();
  await page.route("**/api/account/sessions", async (route) => {
    await asked;
    await route.continue();
  });
  await visitor.open("/sessions");
  const waiting = page.locator(".waiting").first();
  await expect(waiting).toBeVisible();
  // Not even for a screen reader, until it does take long.
  await expect(waiting.getByText("This is taking longer than usual.")).toBeHidden();
  await expect(waiting.getByText("This is taking longer than usual.")).toBeVisible();
  answer();
  await expect(page.getByRole("list", { name: "Live sessions" })).toBeVisible();
  await expect(waiting).toHaveCount(0);
});

test("news of the servers that are slow to begin are waited for", async ({ visitor, page }) => {
  await visitor.beginSession();
  await page.route("**/api/cluster/events", async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await route.continue();
  });
  await visitor.open("/cluster");
  await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
});

test.describe("when the server cannot tell", () => {
  test.use({ expectedFault: refused(503) });

  test("a page says so, and tries again when told", async ({ visitor, page }) => {
    await visitor.register();
    const unavailable = { status: 503, json: { error: "temporarily_unavailable", message: "" }, headers: { "retry-after": "1" } };
    await page.route("**/api/account/sessions", (route) => route.fulfill(unavailable));
    await visitor.open("/sessions");
    const retry = page.getByRole("button", { name: "Try again" });
    await expect(retry).toBeVisible();
    await page.unroute("**/api/account/sessions");
    await retry.click();
    await expect(page.getByRole("list", { name: "Live sessions" })).toBeVisible();
  });
});

test.describe("without JavaScript", () => {
  test.use({ javaScriptEnabled: false });

  test("pages say what they need, and no form puts a password into an address", async ({ page }) => {
    await page.goto("/register");
    await page.getByLabel("E-mail").fill(freshEmail());
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    for (const path of ["/account", "/sessions", "/security", "/password", "/settings", "/cluster"]) {
      await page.goto(path);
      // By its place: Playwright's texts leave out what is in here.
      await expect(page.locator("noscript .note"), path).toBeVisible();
      await expect(page.getByRole("banner").getByRole("button", { name: "Sign out" }), path).toBeVisible();
    }
    await page.goto("/password");
    await page.getByLabel("Current password").fill(PASSWORD);
    await page.getByLabel("New password").fill("another battery staple");
    await page.getByRole("button", { name: "Change password" }).click();
    expect(page.url()).not.toContain("battery");
  });
});
