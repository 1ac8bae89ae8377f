import type { Page } from "@playwright/test";
import { expect, PASSWORD, refused, test } from "./support";

/** Follows a link to this path in a page of another site, such as a mail. Returns the statuses of what was navigated to. */
async function followLinkFromElsewhere(page: Page, baseURL: string, path: string): Promise<number[]> {
  const mail = `<a href="${baseURL}${path}">Open</a><link rel="icon" href="data:,">`;
  await page.route("http://mail.example/**", (route) => route.fulfill({ contentType: "text/html", body: mail }));
  await page.goto("http://mail.example/");
  const statuses: number[] = [];
  page.on("response", (response) => {
    if (response.request().isNavigationRequest()) statuses.push(response.status());
  });
  await page.getByRole("link", { name: "Open" }).click();
  return statuses;
}

for (const [path, heading] of [
  ["/account", "Your access token"],
  ["/sessions", "Sessions"],
  ["/security", "Security"],
  ["/password", "Password"],
  ["/settings", "Settings"],
  ["/cluster", "Servers"],
] as const) {
  test(`a link from another site opens ${path} for a signed-in user, at once`, async ({ visitor, page, baseURL }) => {
    await visitor.register();
    const document = page.waitForResponse((response) => response.url() === `${baseURL}${path}`);
    const statuses = await followLinkFromElsewhere(page, baseURL!, path);
    expect(await (await document).text()).toContain("Sign out");
    await visitor.expectLive();
    await expect(page).toHaveURL(path);
    await expect(page.getByRole("heading", { level: 1, name: heading })).toBeVisible();
    expect(statuses).toEqual([200]);
    // Its calls are those of this site.
    await page.reload();
    await expect(page.getByRole("banner").getByRole("button", { name: "Sign out" })).toBeVisible();
  });
}

test("a link from another site to the sign-in page leads a signed-in user on", async ({ visitor, page, baseURL }) => {
  const email = await visitor.register();
  await followLinkFromElsewhere(page, baseURL!, "/login?next=/sessions");
  await expect(page).toHaveURL("/sessions");
  await visitor.open("/account");
  await visitor.expectAccountOf(email);
});

test.describe("once the session has ended", () => {
  test.use({ expectedFault: refused(401) });

  test("a link from another site leads to the sign-in page, and from there to its page", async ({ visitor, page, baseURL, request }) => {
    const email = await visitor.register();
    const headers = { Authorization: `Bearer ${await visitor.bearer()}` };
    await page.goto("about:blank");
    expect((await request.post("/api/auth/logout", { headers })).status()).toBe(200);
    await followLinkFromElsewhere(page, baseURL!, "/sessions");
    await expect(page).toHaveURL("/login?next=/sessions");
    await visitor.expectLive();
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page).toHaveURL("/sessions");
  });
});

test("what another site can make the browser send is worth nothing", async ({ visitor, page, context, baseURL, playwright }) => {
  await visitor.register();
  const bearer = await visitor.bearer();
  const lax = (await context.cookies()).filter((cookie) => cookie.sameSite === "Lax" && cookie.value.length > 10);
  expect(lax.length).toBe(1);
  const cookie = `${lax[0].name}=${lax[0].value}`;
  const program = await playwright.request.newContext({ baseURL, extraHTTPHeaders: { cookie } });
  expect((await program.post("/api/auth/refresh")).status()).toBe(401);
  expect((await program.post("/api/auth/logout")).status()).toBe(401);
  expect((await program.post("/api/account/me")).status()).toBe(401);
  expect((await program.get("/api/session/events")).status()).toBe(401);
  expect((await program.get("/api/cluster/events")).status()).toBe(401);
  await program.dispose();
  expect((await page.request.post("/api/account/me", { headers: { Authorization: `Bearer ${bearer}` } })).status()).toBe(200);
});
