import { defineConfig } from "@playwright/test";
import common from "./playwright.config";

const [alone] = Array.isArray(common.webServer) ? common.webServer : [common.webServer!];

/** The journeys in Firefox and in WebKit, as the operating system has them: `make e2e-browsers`. */
export default defineConfig({
  ...common,
  testDir: "browsers",
  fullyParallel: false,
  workers: 1,
  projects: [{ name: "firefox" }, { name: "webkit" }],
  use: { baseURL: `http://127.0.0.1:${process.env.E2E_PORT}` },
  webServer: [alone],
});
