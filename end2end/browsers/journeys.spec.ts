import { test as base, expect } from "@playwright/test";
import { type Browser, start, type Tab, whatIsMissing } from "./browser";

const PASSWORD = "correct horse battery";

let count = 0;
const freshEmail = () => `visitor-${process.pid}-${count++}@example.com`;

/** What a person does on the pages, and sees there. */
class Visitor {
  constructor(readonly tab: Tab, private readonly url: string) {}

  async open(path: string) {
    await this.tab.open(this.url + path);
  }

  /** The visible element of this kind with this name. */
  private named(kind: string, name: string): string {
    return `[...document.querySelectorAll(${JSON.stringify(kind)})].find((one) => one.checkVisibility() && one.textContent.trim() === ${JSON.stringify(name)})`;
  }

  private async press(element: string) {
    await expect.poll(() => this.tab.evaluate<boolean>(`!!${element}`), element).toBe(true);
    await this.tab.click(element);
  }

  async pressButton(name: string) {
    await this.press(this.named("button", name));
  }

  async follow(name: string) {
    await this.press(this.named("a", name));
  }

  async fillIn(label: string, text: string) {
    await this.tab.type(`${this.named("label", label)}.control`, text);
  }

  async expectLive() {
    await expect.poll(() => this.tab.evaluate<boolean>(`"hydrated" in document.documentElement.dataset`)).toBe(true);
  }

  async expectAt(path: string) {
    await expect.poll(() => this.tab.evaluate<string>("location.pathname")).toBe(path);
  }

  async expectText(text: RegExp) {
    await expect.poll(() => this.tab.evaluate<string>("document.body.innerText")).toMatch(text);
  }

  async register(): Promise<string> {
    const email = freshEmail();
    await this.open("/register");
    await this.expectLive();
    await this.fillIn("E-mail", email);
    await this.fillIn("Password", PASSWORD);
    await this.pressButton("Create account");
    await this.expectAccountOf(email);
    return email;
  }

  async signIn(email: string) {
    await this.open("/login");
    await this.expectLive();
    await this.fillIn("E-mail", email);
    await this.fillIn("Password", PASSWORD);
    await this.pressButton("Sign in");
    await this.expectAccountOf(email);
  }

  async expectAccountOf(email: string) {
    await this.expectAt("/account");
    await this.expectText(new RegExp(`Signed in as ${email}`));
  }

  async expectSignedOut() {
    await this.expectText(/Sign in/);
    await expect.poll(() => this.bearer()).toBeNull();
  }

  /** The access token that the page keeps. */
  async bearer(): Promise<string | null> {
    return this.tab.evaluate(`JSON.parse(localStorage.getItem("hallpass-session") ?? "null")?.access_token ?? null`);
  }
}

const test = base.extend<{ browser_: Browser; visitor: Visitor }>({
  browser_: async ({}, use, { project }) => {
    const missing = whatIsMissing(project.name);
    test.skip(!!missing, missing);
    const browser = await start(project.name);
    await use(browser);
    await browser.close();
  },
  visitor: async ({ browser_, baseURL }, use) => {
    await use(new Visitor(await browser_.newTab(), baseURL!));
  },
});

async function statusOf(url: string, bearer: string | null): Promise<number> {
  return (await fetch(`${url}/api/account/me`, { method: "POST", headers: { Authorization: `Bearer ${bearer}` } })).status;
}

test("a person signs up, looks at their token, signs out, and signs in again", async ({ visitor, baseURL }) => {
  const email = await visitor.register();
  await visitor.pressButton("Call the API");
  await visitor.expectText(/200 OK/);
  await visitor.follow("Sessions");
  await visitor.expectAt("/sessions");
  await visitor.open("/account");
  await visitor.expectAccountOf(email);
  const bearer = await visitor.bearer();
  expect(await statusOf(baseURL!, bearer)).toBe(200);
  await visitor.pressButton("Sign out");
  await visitor.expectText(/You have been signed out\. Your token was revoked on the server in/);
  await visitor.expectSignedOut();
  expect(await statusOf(baseURL!, bearer)).toBe(401);
  await visitor.signIn(email);
});

test("a page that was open before a reload, a back and a forward shows the same account", async ({ visitor }) => {
  const email = await visitor.register();
  await visitor.open("/docs");
  await visitor.tab.back();
  await visitor.expectAccountOf(email);
  await visitor.open("/sessions");
  await visitor.expectText(/Sessions/);
});

test("signing out in one tab signs out the other", async ({ visitor, browser_, baseURL }) => {
  const email = await visitor.register();
  const other = new Visitor(await browser_.newTab(), baseURL!);
  await other.open("/account");
  await other.expectAccountOf(email);
  await other.pressButton("Sign out");
  await other.expectSignedOut();
  await visitor.expectText(/Signed out/);
  await visitor.expectSignedOut();
});

test("a session that is ended elsewhere is signed out here", async ({ visitor, baseURL }) => {
  await visitor.register();
  const headers = { Authorization: `Bearer ${await visitor.bearer()}` };
  expect((await fetch(`${baseURL}/api/auth/logout`, { method: "POST", headers })).status).toBe(200);
  await visitor.expectText(/Signed out/);
  await visitor.expectSignedOut();
});

test("a page from the back-forward cache shows no account after a sign-out", async ({ visitor }) => {
  const email = await visitor.register();
  await visitor.open("/docs");
  await visitor.pressButton("Sign out");
  await visitor.expectText(/Sign in/);
  await visitor.tab.back();
  // Browsers differ in whether the sign-out has an entry of its own in the history.
  await visitor.tab.back().catch(() => {});
  await expect.poll(async () => (await visitor.tab.evaluate<string>("document.body.innerText")).includes(email)).toBe(false);
  await visitor.expectText(/Sign in/);
  await visitor.expectText(/^(?!.*did not keep the cookie)/s);
});
