import { execFileSync } from "node:child_process";

/**
 * A port that nobody listens on, and none of `taken`, below those that the system gives to clients: none of these may
 * take it meanwhile.
 */
export function freePort(taken: (string | undefined)[] = []): string {
  // In another process, because the caller cannot wait.
  const script = `
    const attempt = () => {
      const port = 20000 + Math.floor(Math.random() * 12000);
      if (process.argv.includes(String(port))) return attempt();
      const server = require("net").createServer();
      server.once("error", attempt);
      server.listen(port, "127.0.0.1", () => { console.log(String(port)); server.close(); });
    };
    attempt();`;
  return execFileSync(process.execPath, ["-e", script, ...taken.map(String)], { encoding: "utf8" }).trim();
}
