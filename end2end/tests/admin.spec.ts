import { Device, expect, freshEmail, PASSWORD, refused, test, type Visitor } from "./support";

/** The list of users, with this one found. */
async function openUsers(visitor: Visitor, email: string) {
  await visitor.signIn("admin@example.com");
  await visitor.expectAccountOf("admin@example.com");
  await visitor.open("/admin");
  await visitor.page.getByLabel("E-mail address").fill(email);
  await visitor.page.getByRole("button", { name: "Find" }).click();
  await expect(visitor.page.getByRole("table", { name: "Users by address" }).getByRole("row")).toHaveCount(2);
}

test.describe("an administrator", () => {
  test.use({ expectedFault: refused(401) });

  test("finds a user, disables them everywhere at once, and lets them in again", async ({ visitor, page, request, browser }) => {
    const email = freshEmail();
    const form = { email, password: PASSWORD, delivery: "body" };
    expect((await request.post("/api/auth/register", { form })).status()).toBe(200);
    const device = await Device.signIn(browser, email);

    await visitor.signIn("admin@example.com");
    await visitor.expectAccountOf("admin@example.com");
    await page.getByRole("navigation", { name: "Account" }).getByRole("link", { name: "Users" }).click();
    await page.getByLabel("E-mail address").fill(email);
    await page.getByRole("button", { name: "Find" }).click();
    const row = page.getByRole("row", { name: new RegExp(`^${email}`) });
    await expect(row.getByRole("cell", { name: "2", exact: true })).toBeVisible();

    const disable = row.getByRole("button", { name: `Disable ${email}` });
    const question = page.getByRole("dialog", { name: `Disable ${email}?` });
    await disable.click();
    await expect(question.getByRole("button", { name: "Cancel" })).toBeFocused();
    await page.keyboard.press("Enter");
    await expect(question).toBeHidden();
    await expect(disable).toBeFocused();
    await expect(row.getByText("active", { exact: true })).toBeVisible();
    await disable.click();
    await question.getByRole("button", { name: "Disable" }).click();
    await visitor.expectToast(new RegExp(`${email} is disabled\\. The server confirmed it in (\\d+ ms|less than a millisecond)\\.`));
    await expect(row.getByText("disabled", { exact: true })).toBeVisible();
    await expect(row.getByRole("button", { name: `Enable ${email}` })).toBeFocused();
    for (const tab of device.tabs) await tab.expectEnded("your account is disabled");
    await device.first.signIn(email);
    await expect(device.first.page.getByRole("alert")).toHaveText("The e-mail address or the password is wrong.");

    await row.getByRole("button", { name: `Enable ${email}` }).click();
    await expect(row.getByText("active", { exact: true })).toBeVisible();
    await visitor.expectToast(new RegExp(`${email} is enabled\\.`));
    await device.first.signIn(email);
    await device.first.expectAccountOf(email);

    await row.getByRole("button", { name: `Make administrator ${email}` }).click();
    await page.getByRole("dialog", { name: `Make ${email} an administrator?` }).getByRole("button", { name: "Make administrator" }).click();
    await expect(row.getByRole("cell", { name: "admin", exact: true })).toBeVisible();
    await device.first.expectEnded("your role was changed");
    await device.first.signIn(email);
    await expect(device.first.page.getByRole("link", { name: "Users" })).toBeVisible();

    await row.getByRole("button", { name: `Show sessions of ${email}` }).click();
    const sessions = page.getByRole("region", { name: `Sessions of ${email}` });
    await expect(sessions.getByText(/Chrome on/)).toBeVisible();
    await sessions.getByRole("button", { name: "End" }).click();
    await device.first.expectEnded("by an administrator");
    await expect(sessions.getByText("Ended", { exact: true })).toBeFocused();
  });
});

test.describe("an administrator who is refused", () => {
  test.use({ expectedFault: refused(503) });

  test("sees the reason, and no message about an earlier success", async ({ visitor, page, request }) => {
    const email = freshEmail();
    expect((await request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
    await openUsers(visitor, email);
    const row = page.getByRole("row", { name: new RegExp(`^${email}`) });
    const confirm = async (action: string, button: string) => {
      await row.getByRole("button", { name: `${action} ${email}` }).click();
      await page.getByRole("dialog").getByRole("button", { name: button }).click();
    };
    await confirm("Disable", "Disable");
    await expect(page.locator(".toast")).toHaveText(/is disabled/);
    const unavailable = { status: 503, json: { error: "temporarily_unavailable", message: "" } };
    await page.route("**/api/admin/enable_user", (route) => route.fulfill(unavailable));
    await row.getByRole("button", { name: `Enable ${email}` }).click();
    await expect(page.getByRole("alert").filter({ hasText: "The servers could not confirm this" })).toBeVisible();
    await expect(page.locator(".toast")).toHaveCount(0);
  });

  test("sees the reason in the dialog, which stays open until the change is made", async ({ visitor, page, request }) => {
    const email = freshEmail();
    expect((await request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
    await openUsers(visitor, email);
    const row = page.getByRole("row", { name: new RegExp(`^${email}`) });
    const question = page.getByRole("dialog", { name: `Disable ${email}?` });
    const unavailable = { status: 503, json: { error: "temporarily_unavailable", message: "" } };
    await page.route("**/api/admin/disable_user", (route) => route.fulfill(unavailable));
    await row.getByRole("button", { name: `Disable ${email}` }).click();
    await question.getByRole("button", { name: "Disable" }).click();
    await expect(question.getByRole("alert")).toContainText("The servers could not confirm this");
    await question.getByRole("button", { name: "Cancel" }).click();
    await page.unroute("**/api/admin/disable_user");
    await row.getByRole("button", { name: `Disable ${email}` }).click();
    await expect(question.getByRole("alert")).toBeEmpty();
    await question.getByRole("button", { name: "Disable" }).click();
    await expect(question).toBeHidden();
    await expect(row.getByText("disabled", { exact: true })).toBeVisible();
  });

  test("learns that the end of all sessions may go on, and stays signed in", async ({ visitor, page }) => {
    await openUsers(visitor, "admin@example.com");
    const unavailable = { status: 503, json: { error: "temporarily_unavailable", message: "" } };
    await page.route("**/api/admin/revoke_all_sessions", (route) => route.fulfill(unavailable));
    await page.getByRole("button", { name: "End all sessions of all users" }).click();
    const question = page.getByRole("dialog", { name: "End all sessions of all users?" });
    await question.getByRole("button", { name: "Yes, end all sessions" }).click();
    await expect(question.getByRole("alert")).toContainText("you are signed out as soon as it is recorded");
    await expect(question.getByRole("button", { name: "Yes, end all sessions" })).toBeEnabled();
    await page.unrouteAll();
    await visitor.open("/account");
    await visitor.expectAccountOf("admin@example.com");
  });
});

test("the administrator's own row has no buttons to change it", async ({ visitor, page }) => {
  await openUsers(visitor, "admin@example.com");
  const row = page.getByRole("row", { name: /^admin@example.com/ });
  await expect(row.getByText("This is you.")).toBeVisible();
  await expect(row.getByRole("button")).toHaveCount(0);
});

test.describe("on a narrow phone", () => {
  test.use({ viewport: { width: 320, height: 640 } });

  test("each user is a card with labeled values and all buttons in sight", async ({ visitor, page, request }) => {
    const email = `${"a".repeat(40)}.${freshEmail()}`;
    expect((await request.post("/api/auth/register", { form: { email, password: PASSWORD } })).status()).toBe(200);
    await openUsers(visitor, email);
    const row = page.getByRole("row", { name: new RegExp(`^${email}`) });
    await expect(row.getByRole("cell", { name: "user", exact: true })).toBeVisible();
    const label = (cell: Element) => getComputedStyle(cell, "::before").content;
    expect(await row.getByRole("cell").nth(1).evaluate(label)).toContain('"Status"');
    for (const button of await row.getByRole("button").all()) {
      const { x, width } = (await button.boundingBox())!;
      expect(x + width).toBeLessThanOrEqual(320);
    }
    const sideways = await page.locator(".table-frame").first().evaluate((frame) => frame.scrollWidth - frame.clientWidth);
    expect(sideways).toBe(0);
  });
});

test.describe("an administrator of services", () => {
  test.use({ permissions: ["clipboard-read", "clipboard-write"] });

  test("sees which may ask about tokens", async ({ visitor, page }) => {
    await visitor.signIn("admin@example.com");
    await visitor.expectAccountOf("admin@example.com");
    await visitor.open("/admin");
    const services = page.getByRole("region", { name: "Services", exact: true });
    await expect(services.getByRole("row", { name: /^notes API hpc_[\w-]{22}/ })).toBeVisible();
    await expect(services).not.toContainText("hps_");
    await services.getByRole("button", { name: "Copy the client id" }).first().click();
    await expect(services.getByText("Copied")).toBeVisible();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(/^hpc_[\w-]{22}$/);
  });
});

test.describe("who is none", () => {
  test.use({ expectedFault: refused(403) });

  test("sees one sentence, and nothing asks for what is not theirs", async ({ visitor, page }) => {
    await visitor.register();
    await expect(page.getByRole("link", { name: "Password" })).toBeVisible();
    await expect(page.getByRole("link", { name: "Users" })).toHaveCount(0);
    const asked: string[] = [];
    page.on("request", (sent) => asked.push(new URL(sent.url()).pathname));
    await visitor.open("/admin");
    await expect(page.getByText("Only an administrator may see this page.")).toBeVisible();
    await expect(page.getByRole("search")).toHaveCount(0);
    await expect(page.getByRole("main").getByRole("button")).toHaveCount(0);
    expect(asked.filter((path) => path.startsWith("/api/admin"))).toEqual([]);
  });
});
