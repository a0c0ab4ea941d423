// A client of a running gateway, in this process: a call costs no process of OpenClaw.
import { randomUUID } from "node:crypto";
import { until } from "./fixture.mjs";

const PROTOCOL = 4;

/**
 * Connects as a backend of the same machine does, once the gateway has started to its end. `request(method, params)`
 * gives the payload of the answer.
 */
export async function connectGateway(gateway, token) {
  let refused;
  return until(
    () =>
      connect(gateway, token).catch((error) => {
        if (!/^UNAVAILABLE: gateway starting/.test(error.message)) throw error;
        refused = error;
      }),
    { timeoutMs: 60_000, everyMs: 100, timeoutMessage: () => `${refused?.message}\n${gateway.log()}` },
  );
}

async function connect({ port }, token) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`);
  const waiting = new Map();
  const challenged = new Promise((resolve, reject) => {
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.event === "connect.challenge") resolve();
      if (frame.type !== "res") return;
      const { settle, fail } = waiting.get(frame.id) ?? {};
      waiting.delete(frame.id);
      if (frame.ok) settle?.(frame.payload);
      else fail?.(new Error(`${frame.error?.code}: ${frame.error?.message}`));
    });
    socket.addEventListener("close", ({ code, reason }) => {
      const error = new Error(`the gateway closed the connection: ${code} ${reason}`);
      reject(error);
      for (const { fail } of waiting.values()) fail(error);
    });
  });
  const request = (method, params) =>
    new Promise((settle, fail) => {
      // What is sent after the end is dropped without a word.
      if (socket.readyState !== WebSocket.OPEN) throw new Error("the gateway closed the connection");
      const id = randomUUID();
      waiting.set(id, { settle, fail });
      socket.send(JSON.stringify({ type: "req", id, method, params }));
    });
  await challenged;
  await request("connect", {
    minProtocol: PROTOCOL,
    maxProtocol: PROTOCOL,
    client: { id: "gateway-client", version: "1.0.0", platform: process.platform, mode: "backend" },
    role: "operator",
    scopes: ["operator.admin", "operator.read", "operator.write"],
    auth: { token },
  });
  return { request, close: () => socket.close() };
}
