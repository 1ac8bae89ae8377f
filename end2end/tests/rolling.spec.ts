import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Browser, type BrowserContext, expect, type Locator, type Page } from "@playwright/test";
import { test, Visitor } from "./support";

/** A program and the site that was built with it. */
interface Build {
  program: string;
  site: string;
}

const root = resolve("..");
const current = { program: join(root, "target/release/hallpass"), site: join(root, "target/site") };
const instances = ["A", "B", "C"].map((name) => `http://127.0.0.1:${process.env[`CLUSTER_${name}`]}`);

/** The build that `PREVIOUS` names, a folder like `target`; without it, this program with another build of the site. */
function previousBuild(): Build {
  const folder = process.env.PREVIOUS;
  if (folder) return { program: resolve(folder, "release/hallpass"), site: resolve(folder, "site") };
  const site = mkdtempSync(join(tmpdir(), "hallpass-site-"));
  cpSync(current.site, site, { recursive: true });
  const style = join(site, "pkg/hallpass.css");
  writeFileSync(style, `${readFileSync(style, "utf8")}\n/* another build */`);
  for (const suffix of [".br", ".gz"]) rmSync(style + suffix);
  return { program: current.program, site };
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Replaces an instance by one of this build: SIGTERM, then a start with the same settings. */
async function replace(number: number, build: Build): Promise<number> {
  const name = "abc"[number];
  const file = join(process.env.CLUSTER_PIDS!, name);
  const pid = Number(readFileSync(file, "utf8"));
  const settings = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").filter(Boolean);
  const env = Object.fromEntries(settings.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
  process.kill(pid, "SIGTERM");
  await expect.poll(() => isRunning(pid)).toBe(false);
  const started = spawn(build.program, { cwd: root, env: { ...env, LEPTOS_SITE_ROOT: build.site }, stdio: "ignore" });
  writeFileSync(file, String(started.pid));
  await expect(async () => expect((await fetch(`${instances[number]}/health/ready`)).status).toBe(200)).toPass();
  return started.pid!;
}

/** A person who clicks while the servers are replaced. */
class Clicker {
  readonly missing: string[] = [];
  rounds = 0;
  private stopped = false;
  private done: Promise<void> = Promise.resolve();

  private constructor(readonly context: BrowserContext, readonly page: Page, readonly visitor: Visitor) {
    page.on("response", (response) => {
      if (response.status() === 404) this.missing.push(response.url());
    });
  }

  static async signIn(browser: Browser): Promise<Clicker> {
    const context = await browser.newContext();
    const page = await context.newPage();
    const clicker = new Clicker(context, page, new Visitor(page));
    await clicker.visitor.register();
    return clicker;
  }

  begin() {
    this.done = this.click();
  }

  async end() {
    this.stopped = true;
    await this.done;
  }

  /** Half of the pages are opened by their address, half by a link in the page. */
  private async click() {
    const tabs = this.page.getByRole("navigation", { name: "Account" });
    while (!this.stopped) {
      await this.visitor.open("/account");
      await this.expectDrawn("Your access token");
      await tabs.getByRole("link", { name: "Sessions" }).click();
      await this.expectDrawn("Sessions");
      await this.visitor.open("/password");
      await tabs.getByRole("link", { name: "Token" }).click();
      await this.expectDrawn("Your access token");
      this.rounds += 1;
    }
  }

  private async expectDrawn(heading: string) {
    await expectDrawn(this.page, heading);
  }
}

async function expectDrawn(page: Page, heading: string) {
  await expect(page.getByRole("heading", { level: 1, name: heading })).toBeVisible();
  await expect(page.locator(".card").first(), "the page has its style").toHaveCSS("border-radius", /^[1-9]/);
}

/** A page that stays open while the servers are replaced. */
class Reader {
  readonly notice;

  private constructor(readonly context: BrowserContext, readonly page: Page) {
    this.notice = page.getByText("A new version of this site is available.");
  }

  static async signIn(browser: Browser): Promise<Reader> {
    const context = await browser.newContext();
    const page = await context.newPage();
    await new Visitor(page).register();
    return new Reader(context, page);
  }

  /** Leaves the page and comes back, so that it connects to the server again. */
  async reconnect() {
    const connected = this.page.waitForResponse("**/api/session/events");
    await this.page.evaluate(() => ["pagehide", "pageshow"].forEach((name) => window.dispatchEvent(new Event(name))));
    await connected;
  }

  async reload() {
    const button = this.page.getByRole("button", { name: "Reload" });
    if (await this.notice.isVisible()) await Promise.all([this.page.waitForEvent("load"), button.click()]);
    else await this.page.reload();
    await new Visitor(this.page).expectLive();
  }

  /** A page of another version goes on working. */
  async expectWorking() {
    await this.open("Sessions", "Your sessions");
    await this.open("Token", "Your access token");
  }

  private async open(link: string, heading: string) {
    await this.page.getByRole("navigation", { name: "Account" }).getByRole("link", { name: link }).click();
    await expectDrawn(this.page, heading);
  }
}

test("servers are replaced by another build and back, and pages go on working", async ({ browser, request }) => {
  const previous = previousBuild();
  const clickers = await Promise.all([1, 2, 3].map(() => Clicker.signIn(browser)));
  const [reader, other] = [await Reader.signIn(browser), await Reader.signIn(browser)];
  const pids: number[] = [];
  try {
    for (const clicker of clickers) clicker.begin();
    const turns = async (build: Build) => {
      for (const number of [0, 1, 2]) {
        pids.push(await replace(number, build));
        const before = clickers.map(({ rounds }) => rounds);
        await expect.poll(() => clickers.every(({ rounds }, one) => rounds > before[one])).toBe(true);
      }
    };
    await turns(previous);
    // Builds of before the notice send no version.
    const isOffered = (await (await fetch(`${instances[0]}/login`)).text()).includes("data-version");
    const expectOffer = (notice: Locator) => (isOffered ? expect(notice).toBeVisible() : Promise.resolve());
    for (const { notice } of [reader, other]) await expectOffer(notice);
    await reader.expectWorking();
    if (isOffered) await reader.page.getByRole("button", { name: "Not now" }).click();
    await expect(reader.notice).toBeHidden();
    await other.reload();
    await expect(other.notice).toBeHidden();
    await turns(current);
    await other.expectWorking();
    await expectOffer(other.notice);
    await turns(previous);
    await other.reload();
    await reader.reconnect();
    await reader.expectWorking();
    for (const { notice } of [reader, other]) await expect(notice).toBeHidden();
    for (const clicker of clickers) {
      await clicker.end();
      expect(clicker.missing, "files that were not found").toEqual([]);
      // Still signed in, and signed out everywhere when it is asked for.
      const bearer = await clicker.visitor.bearer();
      const me = async (url: string) =>
        (await request.post(`${url}/api/account/me`, { headers: { Authorization: `Bearer ${bearer}` } })).status();
      for (const url of instances) expect(await me(url), url).toBe(200);
      await clicker.visitor.signOut();
      await clicker.visitor.expectSignedOut();
      for (const url of instances) expect(await me(url), url).toBe(401);
    }
  } finally {
    await Promise.all([...clickers, reader, other].map(({ context }) => context.close()));
    for (const pid of pids.filter(isRunning)) process.kill(pid, "SIGTERM");
  }
});
