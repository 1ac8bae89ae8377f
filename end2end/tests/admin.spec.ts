import { Device, expect, freshEmail, PASSWORD, refused, test } from "./support";

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

    await row.getByRole("button", { name: `Disable ${email}` }).click();
    await visitor.expectToast(/Done\. The server confirmed it in (\d+ ms|less than a millisecond)\./);
    for (const tab of device.tabs) await tab.expectEnded("your account is disabled");
    await device.first.signIn(email);
    await expect(device.first.page.getByRole("alert")).toHaveText("The e-mail address or the password is wrong.");

    await row.getByRole("button", { name: `Enable ${email}` }).click();
    await expect(row.getByText("active", { exact: true })).toBeVisible();
    await device.first.signIn(email);
    await device.first.expectAccountOf(email);

    await row.getByRole("button", { name: `Make administrator ${email}` }).click();
    await expect(row.getByRole("cell", { name: "admin", exact: true })).toBeVisible();
    await device.first.expectEnded("your role was changed");
    await device.first.signIn(email);
    await expect(device.first.page.getByRole("link", { name: "Users" })).toBeVisible();

    await row.getByRole("button", { name: `Show sessions of ${email}` }).click();
    const sessions = page.getByRole("region", { name: `Sessions of ${email}` });
    await expect(sessions.getByText(/Chrome on/)).toBeVisible();
    await sessions.getByRole("button", { name: "End" }).click();
    await device.first.expectEnded("by an administrator");
    await expect(sessions.getByText("No active sessions.")).toBeVisible();
  });
});

test.describe("an administrator of services", () => {
  test("sees which may ask about tokens", async ({ visitor, page }) => {
    await visitor.signIn("admin@example.com");
    await visitor.expectAccountOf("admin@example.com");
    await visitor.open("/admin");
    const services = page.getByRole("region", { name: "Services", exact: true });
    await expect(services.getByRole("row", { name: /^notes API hpc_[\w-]{22}/ })).toBeVisible();
    await expect(services).not.toContainText("hps_");
  });
});

test.describe("who is none", () => {
  test.use({ expectedFault: refused(403) });

  test("sees no users", async ({ visitor, page }) => {
    await visitor.register();
    await expect(page.getByRole("link", { name: "Password" })).toBeVisible();
    await expect(page.getByRole("link", { name: "Users" })).toHaveCount(0);
    await visitor.open("/admin");
    await expect(page.getByText("Only an administrator may do this.")).toBeVisible();
  });
});
