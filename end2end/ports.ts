import { execFileSync } from "node:child_process";

/** A port that nobody listens on, below those that the system gives to clients: none of these may take it meanwhile. */
export function freePort(): string {
  // In another process, because the caller cannot wait.
  const script = `
    const attempt = () => {
      const port = 20000 + Math.floor(Math.random() * 12000);
      const server = require("net").createServer();
      server.once("error", attempt);
      server.listen(port, "127.0.0.1", () => { console.log(String(port)); server.close(); });
    };
    attempt();`;
  return execFileSync(process.execPath, ["-e", script], { encoding: "utf8" }).trim();
}
