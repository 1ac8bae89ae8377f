// Measures each page with Lighthouse on a simulated phone: `make lighthouse`. RUNS is the number of runs of each page,
// of which it prints the median, PAGES a part of the name of the pages to measure.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const { default: lighthouse } = await import(
  pathToFileURL(join(process.env.LIGHTHOUSE, "node_modules/lighthouse/core/index.js")).href
);
const RUNS = Number(process.env.RUNS ?? 3);
const EMAIL = "admin@example.com";
const PASSWORD = "correct horse battery";
const VISITOR = ["/", "/login", "/register", "/replay", "/docs"];
const SIGNED_IN = ["/", "/account", "/sessions", "/password", "/cluster", "/admin", "/replay", "/docs"];
const METRICS = {
  FCP: "first-contentful-paint",
  LCP: "largest-contentful-paint",
  TBT: "total-blocking-time",
  CLS: "cumulative-layout-shift",
};

const home = mkdtempSync(join(tmpdir(), "hallpass-lighthouse-"));
const address = `127.0.0.1:${await freePort()}`;
const url = `http://${address}`;
const program = resolve("../target/release/hallpass");
const server = await start();
const debugPort = await freePort();
const browser = await puppeteer.launch({
  executablePath: ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync),
  args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
  debuggingPort: debugPort,
});
try {
  console.log("| page | performance | FCP | LCP | TBT | CLS | runs |\n|---|---|---|---|---|---|---|");
  for (const path of VISITOR) await measure(path, path);
  await signIn();
  for (const path of SIGNED_IN) await measure(path, `${path}, signed in`);
} finally {
  await browser.close();
  server.kill();
  rmSync(home, { recursive: true });
}

async function freePort() {
  const listener = createServer();
  await new Promise((listening) => listener.listen(0, "127.0.0.1", listening));
  const { port } = listener.address();
  await new Promise((closed) => listener.close(closed));
  return port;
}

async function start() {
  const options = {
    cwd: "..",
    env: {
      ...process.env,
      LEPTOS_SITE_ADDR: address,
      DATABASE_URL: `sqlite://${home}/hallpass.db`,
      HALLPASS_KEYS: `${home}/keys`,
    },
  };
  await run(["user", "add", EMAIL], options, PASSWORD);
  await run(["user", "role", EMAIL, "admin"], options);
  const started = spawn(program, { ...options, stdio: "ignore" });
  const isReady = () => fetch(`${url}/health/ready`).then(({ ok }) => ok, () => false);
  while (!(await isReady())) {
    if (started.exitCode !== null) throw new Error("the server has not started");
    await new Promise((later) => setTimeout(later, 100));
  }
  return started;
}

async function run(words, options, input = "") {
  const child = spawn(program, words, { ...options, stdio: ["pipe", "ignore", "inherit"] });
  child.stdin.end(`${input}\n`);
  const code = await new Promise((exited) => child.once("exit", exited));
  if (code !== 0) throw new Error(`hallpass ${words.join(" ")} has failed`);
}

async function signIn() {
  const page = await browser.newPage();
  await page.goto(`${url}/login`);
  await page.waitForSelector("html[data-hydrated]");
  await page.type("input[name=email]", EMAIL);
  await page.type("input[name=password]", PASSWORD);
  await page.click("main button[type=submit]");
  await page.waitForFunction(() => location.pathname === "/account" && localStorage.getItem("hallpass-session"));
  await page.close();
}

async function measure(path, name) {
  if (!name.includes(process.env.PAGES ?? "")) return;
  const runs = [];
  for (let failures = 0; runs.length < RUNS; ) {
    const flags = { port: debugPort, onlyCategories: ["performance"], logLevel: "silent" };
    const { lhr } = await lighthouse(url + path, flags);
    if (lhr.runtimeError) {
      // Lighthouse now and then fails to record a trace.
      if (++failures > RUNS) throw new Error(`${path}: ${lhr.runtimeError.message}`);
      continue;
    }
    const shown = new URL(lhr.finalDisplayedUrl).pathname;
    if (shown !== path) throw new Error(`${path} has led to ${shown}`);
    runs.push(lhr);
  }
  const median = (value) => runs.map(value).sort((a, b) => a - b)[Math.floor(RUNS / 2)];
  const score = ({ categories }) => Math.round(categories.performance.score * 100);
  const metrics = Object.entries(METRICS).map(([short, id]) => {
    const value = median(({ audits }) => audits[id].numericValue);
    return short === "CLS" ? value.toFixed(3) : `${Math.round(value)} ms`;
  });
  console.log(`| ${name} | ${median(score)} | ${metrics.join(" | ")} | ${runs.map(score).join(", ")} |`);
}
