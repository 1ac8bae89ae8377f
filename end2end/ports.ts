import { execFileSync } from "node:child_process";

/** A port that nobody listens on. Found in another process, because who asks cannot wait. */
export function freePort(): string {
  const script =
    "const s = require('net').createServer().listen(0, '127.0.0.1', () => { console.log(`${s.address().port}`); s.close(); })";
  return execFileSync(process.execPath, ["-e", script], { encoding: "utf8" }).trim();
}
