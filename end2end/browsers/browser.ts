import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer, { type Browser as Puppeteer, type ElementHandle, type Page } from "puppeteer-core";
import { Builder, Capabilities, type WebDriver, type WebElement } from "selenium-webdriver";
import { freePort } from "../ports";

/** A tab, with the real mouse and keyboard of the browser. */
export interface Tab {
  open(url: string): Promise<void>;
  back(): Promise<void>;
  /** Evaluates an expression in the page. */
  evaluate<T>(expression: string): Promise<T>;
  /** Clicks the element that the expression finds. */
  click(expression: string): Promise<void>;
  /** Types into the element that the expression finds. */
  type(expression: string, text: string): Promise<void>;
}

export interface Browser {
  newTab(): Promise<Tab>;
  close(): Promise<void>;
}

const first = (paths: string[]) => paths.find(existsSync);
const firefox = first(["/usr/bin/firefox-esr", "/usr/bin/firefox"]);
const driver = first(["/usr/bin/WebKitWebDriver"]);
const miniBrowser = first(
  ["x86_64", "aarch64"].flatMap((machine) =>
    ["webkit2gtk-4.1", "webkit2gtk-4.0"].map((version) => `/usr/lib/${machine}-linux-gnu/${version}/MiniBrowser`),
  ),
);
const display = first(["/usr/bin/Xvfb"]);

/** Why the browser cannot be tried on this machine; `undefined` if it can. */
export function whatIsMissing(name: string): string | undefined {
  if (name === "firefox" && !firefox) return "Firefox is not installed";
  if (name === "webkit" && !(driver && miniBrowser)) return "WebKitGTK is not installed, or its driver (webkit2gtk-driver)";
  if (name === "webkit" && !display) return "Xvfb is not installed";
}

export async function start(name: string): Promise<Browser> {
  return name === "firefox" ? Firefox.start() : WebKit.start();
}

class Firefox implements Browser {
  private constructor(private readonly browser: Puppeteer) {}

  static async start(): Promise<Browser> {
    return new Firefox(await puppeteer.launch({ browser: "firefox", executablePath: firefox, headless: true }));
  }

  async newTab(): Promise<Tab> {
    return new FirefoxTab(await this.browser.newPage());
  }

  async close() {
    await this.browser.close();
  }
}

class FirefoxTab implements Tab {
  constructor(private readonly page: Page) {}

  async open(url: string) {
    await this.page.bringToFront();
    await this.page.goto(url);
  }

  async back() {
    await this.page.goBack();
  }

  async evaluate<T>(expression: string): Promise<T> {
    return (await this.page.evaluate(expression)) as T;
  }

  private async element(expression: string): Promise<ElementHandle> {
    await this.page.bringToFront();
    return (await this.page.evaluateHandle(expression)) as unknown as ElementHandle;
  }

  async click(expression: string) {
    await (await this.element(expression)).click();
  }

  async type(expression: string, text: string) {
    await (await this.element(expression)).type(text);
  }
}

/** WebKitGTK has no headless mode, so it runs in a display of its own. */
class WebKit implements Browser {
  private opened = 0;

  private constructor(
    private readonly browser: WebDriver,
    private readonly processes: ChildProcess[],
    private readonly home: string,
  ) {}

  static async start(): Promise<Browser> {
    const home = mkdtempSync(join(tmpdir(), "hallpass-webkit-"));
    const screen = spawn(display!, ["-displayfd", "3", "-screen", "0", "1280x900x24", "-nolisten", "tcp"], {
      stdio: ["ignore", "ignore", "ignore", "pipe"],
    });
    const number = await new Promise<string>((resolve) => screen.stdio[3]!.once("data", (data) => resolve(`${data}`.trim())));
    const port = freePort();
    const env = { ...process.env, DISPLAY: `:${number}`, HOME: home, XDG_DATA_HOME: home, XDG_CACHE_HOME: home };
    const server = spawn(driver!, [`--port=${port}`], { env, stdio: "ignore" });
    const capabilities = new Capabilities({
      browserName: "MiniBrowser",
      "webkitgtk:browserOptions": { binary: miniBrowser, args: ["--automation"] },
    });
    const url = `http://127.0.0.1:${port}`;
    for (let isUp = false; !isUp; ) isUp = await fetch(`${url}/status`).then(() => true, () => false);
    const browser = await new Builder().usingServer(url).withCapabilities(capabilities).build();
    return new WebKit(browser, [server, screen], home);
  }

  async newTab(): Promise<Tab> {
    // The browser starts with one.
    if (this.opened++ > 0) await this.browser.switchTo().newWindow("tab");
    return new WebKitTab(this.browser, await this.browser.getWindowHandle());
  }

  async close() {
    await this.browser.quit().catch(() => {});
    for (const started of this.processes) started.kill();
    rmSync(this.home, { recursive: true, force: true });
  }
}

class WebKitTab implements Tab {
  constructor(private readonly browser: WebDriver, private readonly handle: string) {}

  private async here() {
    await this.browser.switchTo().window(this.handle);
  }

  async open(url: string) {
    await this.here();
    await this.browser.get(url);
  }

  async back() {
    await this.here();
    await this.browser.navigate().back();
  }

  async evaluate<T>(expression: string): Promise<T> {
    await this.here();
    return this.browser.executeScript<T>(`return ${expression}`);
  }

  async click(expression: string) {
    await (await this.evaluate<WebElement>(expression)).click();
  }

  async type(expression: string, text: string) {
    await (await this.evaluate<WebElement>(expression)).sendKeys(text);
  }
}
