import AxeBuilder from "@axe-core/playwright";
import { test as base, expect, type Browser, type BrowserContext, type Page, type Route } from "@playwright/test";

export { expect };

export const PASSWORD = "correct horse battery";

/** What a person does on the pages, in their words. */
export class Visitor {
  constructor(readonly page: Page) {}

  /** Goes there, and waits until clicks are heard. */
  async open(path: string) {
    await this.page.goto(path);
    await this.expectLive();
  }

  async expectLive() {
    await expect(this.page.locator("html")).toHaveAttribute("data-hydrated", "");
  }

  async fillIn(email: string, password: string) {
    await this.page.getByLabel("E-mail").fill(email);
    await this.page.getByLabel("Password").fill(password);
  }

  async register(email = freshEmail()): Promise<string> {
    await this.open("/register");
    await this.fillIn(email, PASSWORD);
    await this.page.getByRole("button", { name: "Create account" }).click();
    await this.expectAccountOf(email);
    return email;
  }

  /** Registers by the API: for tests of what comes after the form. */
  async beginSession(email = freshEmail()): Promise<string> {
    const form = { email, password: PASSWORD };
    expect((await this.page.request.post("/api/auth/register", { form })).status()).toBe(200);
    return email;
  }

  async signIn(email: string, password = PASSWORD) {
    await this.open("/login");
    await this.fillIn(email, password);
    await this.page.getByRole("button", { name: "Sign in", exact: true }).click();
  }

  async signOut() {
    await this.page.getByRole("banner").getByRole("button", { name: "Sign out" }).click();
  }

  async expectAccountOf(email: string) {
    await expect(this.page).toHaveURL("/account");
    await expect(this.page.getByText(`Signed in as ${email}`)).toBeVisible();
  }

  async expectSignedOut() {
    await expect(this.page.getByRole("banner").getByRole("link", { name: "Sign in" })).toBeVisible();
    expect(await this.bearer()).toBeNull();
  }

  /** A page of the app that was open when the session ended. */
  async expectSignedOutInPlace() {
    await expect(this.page.getByRole("heading", { name: "Signed out" })).toBeVisible();
    await this.expectSignedOut();
  }

  /** What the page says when the session has ended without its doing. */
  async expectEnded(reason: string | RegExp) {
    await expect(this.page.getByRole("status").filter({ hasText: reason })).toBeVisible();
    await this.expectSignedOut();
  }

  /** What the page says, or has said, in passing. */
  async expectToast(text: RegExp) {
    await expect.poll(() => this.page.evaluate(() => window.toasts.join("\n"))).toMatch(text);
  }

  /** The access token that the page keeps in `localStorage`. */
  async bearer(): Promise<string | null> {
    const stored = await this.page.evaluate(() => localStorage.getItem("hallpass-session"));
    return stored && JSON.parse(stored).access_token;
  }

  /** Changes what the page keeps beside the token. */
  async alterStored(change: Record<string, number>) {
    await this.page.evaluate((change) => {
      const stored = JSON.parse(localStorage.getItem("hallpass-session")!);
      localStorage.setItem("hallpass-session", JSON.stringify({ ...stored, ...change }));
    }, change);
  }
}

/** A browser of its own, with two tabs. */
export class Device {
  private constructor(readonly context: BrowserContext, readonly first: Visitor, readonly second: Visitor) {}

  get tabs() {
    return [this.first, this.second];
  }

  /** Signs in in the first tab, and opens a page in both. */
  static async signIn(browser: Browser, email: string, { path = "/account", password = PASSWORD } = {}): Promise<Device> {
    const context = await browser.newContext();
    await recordToasts(context);
    const [first, second] = [new Visitor(await context.newPage()), new Visitor(await context.newPage())];
    await first.signIn(email, password);
    await first.expectAccountOf(email);
    await second.open("/account");
    await second.expectAccountOf(email);
    if (path !== "/account") await first.open(path);
    return new Device(context, first, second);
  }

  /** Its refresh token, as a thief would copy it. */
  async refreshToken(): Promise<string> {
    const cookies = await this.context.cookies();
    return cookies.find((cookie) => cookie.name.startsWith("hallpass-refresh"))!.value;
  }

  async expectSignedIn(email: string) {
    for (const tab of this.tabs) {
      await tab.open("/account");
      await tab.expectAccountOf(email);
    }
  }
}

declare global {
  interface Window {
    toasts: string[];
  }
}

/** Keeps each toast that the page shows: on a slow machine it may be gone before the test looks. */
async function recordToasts(context: BrowserContext) {
  await context.addInitScript(() => {
    window.toasts = [];
    new MutationObserver(() => {
      const toast = document.querySelector(".toast");
      const text = toast?.checkVisibility() && toast.textContent;
      if (text && text !== window.toasts.at(-1)) window.toasts.push(text);
    }).observe(document, { childList: true, characterData: true, subtree: true });
  });
}

/** What axe finds, once nothing moves: a text that is still fading in has too little contrast. */
export async function expectNoViolations(page: Page) {
  await page.waitForFunction(() => document.getAnimations().every(({ playState }) => playState !== "running"));
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations).toEqual([]);
}

let count = 0;

export function freshEmail(): string {
  return `visitor-${process.pid}-${count++}@example.com`;
}

/** Every test fails if its page logs an error or breaks the Content-Security-Policy. */
export const test = base.extend<{ visitor: Visitor; faults: string[]; expectedFault: RegExp | undefined }>({
  expectedFault: [undefined, { option: true }],
  context: async ({ context }, use) => {
    await recordToasts(context);
    await use(context);
  },
  faults: async ({ page, expectedFault }, use) => {
    const faults: string[] = [];
    page.on("pageerror", (error) => faults.push(`${error}`));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") faults.push(message.text());
    });
    await use(faults);
    expect(faults.filter((fault) => !expectedFault?.test(fault))).toEqual([]);
  },
  visitor: async ({ page, faults }, use) => {
    void faults;
    await use(new Visitor(page));
  },
});

/** Sends the request to the server with these headers, past the browser: it learns nothing of the answer. */
export async function sendPastBrowser(route: Route, headerNames: string[]): Promise<Response> {
  const request = route.request();
  const all = await request.allHeaders();
  const headers = headerNames.filter((name) => name in all).map((name): [string, string] => [name, all[name]]);
  return fetch(request.url(), { method: request.method(), headers, body: request.postData() });
}

/** What Chromium itself writes to the console when a request is refused. */
export const refused = (...statuses: number[]) => new RegExp(`Failed to load resource.* (${statuses.join("|")}) `);
