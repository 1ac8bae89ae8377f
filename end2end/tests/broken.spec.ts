import type { Page } from "@playwright/test";
import { expect, freshEmail, PASSWORD, test, type Visitor } from "./support";

/** Inserts an element beside each input before the page is hydrated, as password managers do. */
const addIcons = (where: "before" | "after") => (page: Page) =>
  page.addInitScript((where) => {
    new MutationObserver(() => {
      for (const input of document.querySelectorAll("input:not([data-icon])")) {
        input.setAttribute("data-icon", "");
        const icon = document.createElement("div");
        icon.className = "foreign";
        input[where](icon);
      }
    }).observe(document, { childList: true, subtree: true });
  }, where);

/** Inserts an element as the first of `<body>`, as toolbars do. */
const addToolbar = (page: Page) =>
  page.addInitScript(() => {
    new MutationObserver(() => {
      if (!document.body || document.querySelector(".foreign.toolbar")) return;
      const toolbar = document.createElement("div");
      toolbar.className = "foreign toolbar";
      document.body.prepend(toolbar);
    }).observe(document, { childList: true, subtree: true });
  });

/** Wraps the texts of the page before it is hydrated, as translators do. */
const translate = (page: Page) =>
  page.addInitScript(() => {
    document.addEventListener("readystatechange", () => {
      if (document.readyState !== "interactive") return;
      const texts = document.createTreeWalker(document.querySelector("main")!, NodeFilter.SHOW_TEXT);
      const found: Node[] = [];
      while (texts.nextNode()) found.push(texts.currentNode);
      for (const text of found) {
        const font = document.createElement("font");
        text.parentNode!.replaceChild(font, text);
        font.append(text);
      }
    });
  });

const notice = (page: Page) => page.locator("#page-error");

/** Signs in by the forms alone. */
async function signInByForm(visitor: Visitor) {
  const { page } = visitor;
  await page.goto("/register");
  const email = freshEmail();
  await visitor.fillIn(email, PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page).toHaveURL("/account");
  return email;
}

/** The notice is there, and nothing seems to be loading. */
async function expectNotice(page: Page, text: RegExp) {
  await expect(notice(page)).toBeVisible();
  await expect(notice(page).locator("p:visible")).toHaveText(text);
  await expect(page.locator(".waiting:visible")).toHaveCount(0);
}

/** The notice's buttons work without wasm. */
async function expectButtonsWork(page: Page) {
  await notice(page).getByRole("button", { name: "Reload" }).click();
  await expect(notice(page)).toBeVisible();
  await expect(page).toHaveURL("/account");
  await notice(page).getByRole("button", { name: "Sign out" }).click();
  await expect(page).toHaveURL("/login");
  expect((await page.request.post("/api/auth/refresh")).status()).toBe(401);
}

const insertions = {
  "elements behind the inputs": addIcons("after"),
  "elements before the inputs": addIcons("before"),
  "an element first in the body": addToolbar,
};

for (const [what, insert] of Object.entries(insertions)) {
  test(`a page into which an extension puts ${what} is live`, async ({ visitor, page }) => {
    await insert(page);
    const email = await visitor.register();
    await visitor.open("/password");
    expect(await page.locator(".foreign").count()).toBeGreaterThan(0);
    await page.getByLabel("Current password").fill(PASSWORD);
    await page.getByLabel("New password").fill("another horse battery");
    await page.getByRole("button", { name: "Change password" }).click();
    await expect(page.getByText(/Your password has been changed/)).toBeVisible();
    await visitor.signOut();
    await visitor.expectSignedOutInPlace();
    await visitor.signIn(email, "another horse battery");
    await visitor.expectAccountOf(email);
    await expect(notice(page)).toBeHidden();
  });
}

test.describe("in a page that does not work", () => {
  test.use({ expectedFault: /unreachable|panicked|Failed to (load resource|fetch)|failed to fetch Wasm|WebAssembly|TypeError|ERR_|SecurityError/ });

  test("a page that is changed before it is hydrated says so, and its forms go as they would without scripts", async ({ visitor, page }) => {
    await translate(page);
    await page.goto("/login");
    await expectNotice(page, /something in this browser has changed it/);
    await expect(page.locator("html")).not.toHaveAttribute("data-hydrated");
    await signInByForm(visitor);
    await expectNotice(page, /something in this browser has changed it/);
    await expectButtonsWork(page);
  });

  test("without WebAssembly the page says what it needs", async ({ visitor, page }) => {
    await page.addInitScript(() => delete (window as { WebAssembly?: unknown }).WebAssembly);
    await page.goto("/login");
    await expectNotice(page, /This page needs WebAssembly/);
    await signInByForm(visitor);
    await expectNotice(page, /This page needs WebAssembly/);
    await expectButtonsWork(page);
  });

  for (const file of ["hallpass.js", "hallpass.wasm"]) {
    test(`a page whose ${file} is missing says so`, async ({ visitor, page }) => {
      await page.route(`**/${file}`, (route) => route.fulfill({ status: 404 }));
      await signInByForm(visitor);
      await expectNotice(page, /a part of it could not be loaded/);
      await expectButtonsWork(page);
    });
  }

  test("a page whose wasm a policy or an old engine refuses says what it needs", async ({ page }) => {
    await page.addInitScript(() => {
      WebAssembly.instantiateStreaming = () => Promise.reject(new WebAssembly.CompileError("refused"));
    });
    await page.goto("/login");
    await expectNotice(page, /This page needs WebAssembly/);
  });

  test("a page whose app cannot be fetched says so until it can", async ({ visitor, page }) => {
    const email = await visitor.register();
    await page.route("**/split_app.wasm", (route) => route.abort());
    await page.reload();
    await expectNotice(page, /The page keeps trying/);
    await page.unroute("**/split_app.wasm");
    await visitor.expectAccountOf(email);
    await expect(notice(page)).toBeHidden();
  });

  test("a page that panics says so, and its links and forms work without it", async ({ visitor, page }) => {
    await visitor.register();
    // Safari throws this once a page has added a hundred entries in half a minute.
    await page.evaluate(() => {
      history.pushState = () => {
        throw new DOMException("too many", "SecurityError");
      };
    });
    await page.getByRole("link", { name: "Sessions" }).click();
    await expectNotice(page, /Something went wrong in this page/);
    await page.getByRole("link", { name: "Servers" }).click();
    await expect(page).toHaveURL("/cluster");
    await visitor.expectLive();
    await visitor.signOut();
    await visitor.expectSignedOutInPlace();
  });
});
