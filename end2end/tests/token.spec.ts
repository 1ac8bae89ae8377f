import { expect, refused, test, type Visitor } from "./support";

/** The walk up to its last step. */
async function walkTo(visitor: Visitor) {
  const { page } = visitor;
  await visitor.register();
  const step = (name: string) => page.getByRole("listitem").filter({ has: page.getByRole("heading", { name }) });
  await expect(step("Call the protected API")).toHaveAttribute("aria-current", "step");
  await page.getByRole("button", { name: "Call the API" }).click();
  await expect(page.getByText("200 OK", { exact: true })).toBeVisible();
  await page.getByText("Request and response").click();
  await expect(page.getByRole("group", { name: "Response" })).toContainText(/200 OK.*"sub":/s);
  await expect(page.getByRole("group", { name: "Request" })).toContainText(/Authorization: Bearer eyJ\w{9}…$/);
  await expect(step("Keep a copy")).toHaveAttribute("aria-current", "step");
  await page.getByRole("button", { name: "Keep a copy" }).click();
  await expect(page.getByText(/Kept, in this tab only, until you reload it\. The copy expires at \d+:\d\d/)).toBeVisible();
  await expect(step("Sign out")).toHaveAttribute("aria-current", "step");
  await step("Sign out").getByRole("button", { name: "Sign out" }).click();
  await expect(page).toHaveURL("/replay");
}

test("the token is taken apart, as it is", async ({ visitor, page }) => {
  await visitor.register();
  const [header, claims] = (await visitor.bearer())!.split(".").map((part) => Buffer.from(part, "base64url").toString());
  const shown = page.getByRole("group", { name: "The token as it is sent" });
  await expect(shown).toHaveText((await visitor.bearer())!);
  for (const [name, value] of Object.entries({ ...JSON.parse(header), ...JSON.parse(claims) })) {
    const term = page.getByRole("term").filter({ hasText: new RegExp(`^${name}$`) });
    await expect(term, name).toHaveCount(1);
    await expect(term.locator("xpath=following-sibling::dd[1]"), name).toContainText(String(value));
  }
});

test.describe("with a clipboard", () => {
  test.use({ permissions: ["clipboard-read", "clipboard-write"] });

  test("the token is copied whole", async ({ visitor, page }) => {
    await visitor.register();
    await page.getByRole("button", { name: "Copy the token" }).click();
    await expect(page.getByText("Copied")).toBeVisible();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(await visitor.bearer());
  });
});

test("a browser without a clipboard says what to do", async ({ visitor, page }) => {
  await page.addInitScript(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await visitor.register();
  await page.getByRole("button", { name: "Copy the token" }).click();
  await expect(page.getByText("Select the text and copy it.")).toBeVisible();
});

test("the next token is fetched when asked for, and seen to come", async ({ visitor, page }) => {
  await visitor.register();
  const first = await visitor.bearer();
  await page.getByRole("button", { name: "Renew now" }).click();
  await expect(page.getByText("Renewed once")).toBeVisible();
  const second = await visitor.bearer();
  expect(second).not.toBe(first);
  await expect(page.getByRole("group", { name: "The token as it is sent" })).toHaveText(second!);
});

test.describe("a kept copy", () => {
  test.use({ expectedFault: refused(401) });

  test("is refused after log-out, though its signature is good", async ({ visitor, page }) => {
    await walkTo(visitor);
    const verdicts = page.getByRole("region", { name: /says$/ });
    const again = page.getByRole("main").getByRole("link", { name: "Sign in again" });
    await expect(verdicts).toHaveCount(0);
    await expect(again).toHaveClass(/quiet/);
    await page.getByRole("button", { name: "Send the copy" }).click();
    await expect(verdicts).toHaveCount(2);
    await expect(again).not.toHaveClass(/quiet/);
    const answers = page.getByRole("table", { name: "Responses to the copy" });
    await expect(answers.getByRole("row", { name: /401 Unauthorized (< 1|\d+) ms/ })).toHaveCount(1);
    await expect(page.getByRole("region", { name: "An ordinary JWT check says" })).toContainText(/Still valid.*for another \d min/s);
    await expect(page.getByText(/The server refuses it, though its signature is valid for another \d min/)).toBeVisible();
  });

  test("is forgotten when told, and with the page", async ({ visitor, page }) => {
    await walkTo(visitor);
    await page.getByRole("button", { name: "Delete the copy" }).click();
    await expect(page.getByText("There is no copy of a token in this tab.")).toBeVisible();
    await walkTo(visitor);
    await page.reload();
    await expect(page.getByText("There is no copy of a token in this tab.")).toBeVisible();
  });
});

test("a copy of a live session is let in, and the page says so", async ({ visitor, page }) => {
  await visitor.register();
  await page.getByRole("button", { name: "Keep a copy" }).click();
  // Not by its address: a new page has no copy.
  await page.evaluate(() => {
    history.pushState({}, "", "/replay");
    dispatchEvent(new PopStateEvent("popstate"));
  });
  await page.getByRole("button", { name: "Send the copy" }).click();
  await expect(page.getByRole("row", { name: /200 OK/ })).toBeVisible();
  await expect(page.getByText(/Accepted: its session is still live/)).toBeVisible();
});
