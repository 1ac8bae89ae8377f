import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../ports";
import { expect } from "./support";

/** A server of the test's own, that can be killed and started again. */
export class Server {
  readonly url = `127.0.0.1:${freePort()}`;
  private child?: ChildProcess;
  private readonly home = mkdtempSync(join(tmpdir(), "hallpass-server-"));

  constructor(private readonly settings: Record<string, string> = {}) {}

  private get env() {
    return {
      ...process.env,
      LEPTOS_SITE_ADDR: this.url,
      DATABASE_URL: `sqlite://${this.home}/hallpass.db`,
      HALLPASS_KEYS: `${this.home}/keys`,
      HALLPASS_MAIL_DIR: `${this.home}/mail`,
      ...this.settings,
    };
  }

  /** Runs a command of the command line, before the server is started. */
  run(command: string[], input = "") {
    execFileSync("target/release/hallpass", command, { cwd: "..", env: this.env, input });
  }

  async start() {
    this.child = spawn("target/release/hallpass", { cwd: "..", stdio: "ignore", env: this.env });
    const answers = () => fetch(`http://${this.url}/health/ready`).then((answer) => answer.status, () => 0);
    await expect.poll(answers).toBe(200);
  }

  async kill() {
    if (this.child?.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await ended;
  }
}
