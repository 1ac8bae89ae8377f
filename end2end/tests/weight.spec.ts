import { type Page, type Response } from "@playwright/test";
import { expect, freshEmail, PASSWORD, test } from "./support";

/** What the first load of /login may transfer in all, in bytes: what it did when this was written, and a tenth. */
const LIMIT = 130_000 * 1.1;

/** The responses that this page gets from now on. */
function record(page: Page): Response[] {
  const responses: Response[] = [];
  page.on("response", (response) => responses.push(response));
  return responses;
}

const path = (response: Response) => new URL(response.url()).pathname;

test("the first load of /login is light, compressed, and asks for nothing else", async ({ visitor, page }) => {
  const responses = record(page);
  await visitor.open("/login");
  // The last that is asked for.
  await expect.poll(() => responses.some((response) => /icon/.test(path(response)))).toBe(true);
  await page.waitForLoadState("networkidle");
  let total = 0;
  const table: [string, number][] = [];
  for (const response of responses) {
    const { responseBodySize } = await response.request().sizes();
    table.push([path(response), responseBodySize]);
    total += responseBodySize;
    expect(await response.headerValue("content-encoding"), path(response)).toBe("br");
  }
  test.info().annotations.push({ type: "weight", description: `${total} bytes: ${JSON.stringify(table)}` });
  expect(total).toBeLessThan(LIMIT);
  // Browsers differ in which of the icons they load.
  const files = responses.filter((response) => !/icon/.test(path(response)));
  expect(responses.length - files.length).toBe(1);
  const names = files.map((response) => path(response).replace(/^\/[\w-]{16}\/pkg\//, "").replace(/\._+\./, ".")).sort();
  expect(names).toEqual(["/login", "__wasm_split.js", "hallpass.css", "hallpass.js", "hallpass.wasm"]);
});

test("files are kept for ever, and not asked for again", async ({ visitor, page }) => {
  const responses = record(page);
  await visitor.open("/login");
  const files = responses.filter((response) => path(response).includes("/pkg/"));
  expect(files.length).toBeGreaterThan(3);
  for (const file of files) {
    expect(await file.headerValue("cache-control"), path(file)).toBe("public, max-age=31536000, immutable");
  }
  await visitor.open("/register");
  const transferred = await page.evaluate(() => {
    const loaded = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
    return loaded.filter(({ name }) => name.includes("/pkg/")).map(({ transferSize }) => transferSize);
  });
  expect(new Set(transferred)).toEqual(new Set([0]));
});

test("the app comes while the form is filled in", async ({ visitor, page }) => {
  await visitor.open("/login");
  const app = page.waitForResponse("**/split_app.wasm");
  await page.getByLabel("E-mail").fill("a");
  expect((await app).status()).toBe(200);
});

test.describe("when the app cannot be fetched", () => {
  test.use({ expectedFault: /Failed to (load resource|fetch)|ERR_|TypeError/ });

  test("the form goes as it would without scripts", async ({ visitor, page }) => {
    await page.route("**/split_app.wasm", (route) => route.abort());
    await visitor.open("/register");
    const email = freshEmail();
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page).toHaveURL("/account");
    await page.unroute("**/split_app.wasm");
    await visitor.expectAccountOf(email);
  });

  test("without a network the form says so, keeps what was typed, and works when there is one", async ({ visitor, page, context }) => {
    await visitor.open("/register");
    await context.setOffline(true);
    const email = freshEmail();
    await visitor.fillIn(email, PASSWORD);
    await page.getByRole("button", { name: "Create account" }).click();
    await expect(page.getByRole("alert")).toHaveText(/could not be reached/);
    await expect(page.getByLabel("E-mail")).toHaveValue(email);
    await context.setOffline(false);
    await page.getByRole("button", { name: "Create account" }).click();
    await visitor.expectAccountOf(email);
  });

  test("a page of the app becomes live when it can", async ({ visitor, page }) => {
    const email = await visitor.register();
    let refused = 0;
    await page.route("**/split_app.wasm", (route) => {
      refused += 1;
      return route.abort();
    });
    await page.reload();
    await expect.poll(() => refused).toBeGreaterThan(1);
    await page.unroute("**/split_app.wasm");
    await visitor.expectLive();
    await visitor.expectAccountOf(email);
  });
});
