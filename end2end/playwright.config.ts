import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineConfig, devices } from "@playwright/test";
import { freePort } from "./ports";

// This file is read again by each worker: the first reading decides, the environment carries it.
const ports = ["E2E_PORT", "MAIL_PORT", "CLUSTER_PORT", "CLUSTER_NGINX", "CLUSTER_GATED", "CLUSTER_A", "CLUSTER_B", "CLUSTER_C"];
for (const name of ports) process.env[name] ??= freePort(ports.map((name) => process.env[name]));
process.env.E2E_HOME ??= mkdtempSync(join(tmpdir(), "hallpass-e2e-"));
process.env.CLUSTER_PIDS ??= mkdtempSync(join(tmpdir(), "hallpass-pids-"));
const url = `http://127.0.0.1:${process.env.E2E_PORT}`;
const clusterUrl = `http://127.0.0.1:${process.env.CLUSTER_PORT}`;
const home = process.env.E2E_HOME;
const python = existsSync("/usr/bin/python3") ? "/usr/bin/python3" : "python3";

export default defineConfig({
  testDir: "tests",
  fullyParallel: true,
  workers: 2,
  // A slow machine must not decide a test: only something that never comes can reach these.
  timeout: 300_000,
  expect: { timeout: 60_000 },
  forbidOnly: !!process.env.CI,
  reporter: [["list"]],
  // `make screenshots` checks nothing, and the tests draw nothing.
  projects: process.env.SCREENSHOTS
    ? [{ name: "screenshots", testDir: "screenshots", use: { baseURL: clusterUrl } }]
    : [
        { name: "alone", testIgnore: ["cluster.spec.ts", "rolling.spec.ts"], use: { baseURL: url } },
        { name: "cluster", testMatch: "cluster.spec.ts", use: { baseURL: clusterUrl } },
        // Last, because it leaves processes of its own in place of the instances.
        { name: "rolling", testMatch: "rolling.spec.ts", use: { baseURL: clusterUrl }, dependencies: ["alone", "cluster"] },
      ],
  use: {
    trace: "retain-on-failure",
    ...devices["Desktop Chrome"],
    launchOptions: {
      // Debian's Chromium where it is; else the one that Playwright has installed.
      executablePath: ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync),
      args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
    },
  },
  webServer: [
    {
      // Only with SQLite an administrator has to be made while no server is running.
      command: `echo 'correct horse battery' | target/release/hallpass user add admin@example.com &&
        target/release/hallpass user role admin@example.com admin &&
        target/release/hallpass client add 'notes API' && exec target/release/hallpass`,
      cwd: "..",
      url: `${url}/health/ready`,
      env: {
        LEPTOS_SITE_ADDR: `127.0.0.1:${process.env.E2E_PORT}`,
        DATABASE_URL: `sqlite://${home}/hallpass.db`,
        HALLPASS_KEYS: `${home}/keys`,
        HALLPASS_PUBLIC_URL: url,
        HALLPASS_SMTP_URL: `smtp://127.0.0.1:${process.env.MAIL_PORT}`,
        HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS: "100000",
        // What administrators do is tested here; that they need a second factor, in security.spec.ts.
        HALLPASS_ADMIN_SECOND_FACTOR: "false",
      },
      timeout: 300_000,
      gracefulShutdown: { signal: "SIGTERM", timeout: 30_000 },
    },
    {
      // Debian's package of the mail server is for the Python of Debian.
      command: `mkdir -p ${home}/mail && exec ${python} tests/mail_server.py ${home}/mail ${process.env.MAIL_PORT}`,
      cwd: "..",
      port: Number(process.env.MAIL_PORT),
      gracefulShutdown: { signal: "SIGTERM", timeout: 30_000 },
    },
    {
      command: "deploy/cluster",
      cwd: "..",
      url: `${clusterUrl}/proxy/ready`,
      env: {
        HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS: "100000",
        HALLPASS_MAIL_DIR: `${home}/cluster-mail`,
        CLUSTER_NOTES: "target/debug/examples/notes",
      },
      timeout: 600_000,
      gracefulShutdown: { signal: "SIGTERM", timeout: 30_000 },
    },
  ],
});
