import { expect, freshEmail, PASSWORD, test } from "./support";

// Cookies know no ports: the cluster's proxy is another service on the same host.
const cluster = `http://127.0.0.1:${process.env.CLUSTER_PORT}`;

test("a foreign cookie with any characters signs nobody out and hides no session from a logout", async ({ visitor, page }) => {
  await visitor.open("/");
  await page.evaluate(() => {
    document.cookie = "who=Renée; Path=/";
    document.cookie = "quotes=\"; Path=/";
  });
  const email = await visitor.register();
  await visitor.open("/account");
  await visitor.expectAccountOf(email);
  // The cookie is all that is left of the session.
  await page.evaluate(() => localStorage.clear());
  await visitor.signOut();
  await expect(page.getByText(/Your token was revoked on the server/)).toBeVisible();
  await page.context().clearCookies({ name: "who" });
  await visitor.open("/account");
  await expect(page).toHaveURL("/login");
});

test("two services on one host sign nobody out of the other", async ({ visitor, page }) => {
  const email = await visitor.register();
  await page.goto(`${cluster}/register`);
  await visitor.expectLive();
  await visitor.fillIn(freshEmail(), PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page).toHaveURL(`${cluster}/account`);
  await visitor.open("/account");
  await visitor.expectAccountOf(email);
  await page.goto(`${cluster}/account`);
  await visitor.expectLive();
  await visitor.signOut();
  await expect(page.getByText(/Your token was revoked on all/)).toBeVisible();
  await visitor.open("/account");
  await visitor.expectAccountOf(email);
});

test("an address with an international domain is one account, as Chromium sends it and as it is typed", async ({ visitor, page, request }) => {
  const email = `${freshEmail().split("@")[0]}@bücher.example`;
  await visitor.open("/register");
  await visitor.fillIn(email, PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page).toHaveURL("/account");
  const login = await request.post("/api/auth/login", { data: { email, password: PASSWORD } });
  expect(login.status()).toBe(200);
});
