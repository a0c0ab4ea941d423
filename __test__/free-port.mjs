// A port of this machine for a server that is told which to take.
import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/**
 * Nobody listens on it. It is below those that the system gives to connections and to port 0, so nobody gets it either while
 * the process that had it is down.
 */
export async function freePort() {
  for (;;) {
    const port = 20_000 + randomInt(12_000);
    const server = createServer();
    const free = await new Promise((resolve) => {
      server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
