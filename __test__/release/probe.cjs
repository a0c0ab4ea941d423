// Copied into an app that has the package: loads it, and does one real thing with it in the folder that is named.
"use strict";
const { join } = require("node:path");
const { isMainThread, Worker, workerData } = require("node:worker_threads");

async function use(core, folder) {
  const store = await core.EventStore.open(folder);
  const data = core.parseJson5("{ text: 'hi', tokens: [0x10, +1,], }");
  await store.append({ sessionKey: "agent:main:main", agentId: "main", kind: "message_received", data });
  const [event] = await store.read("agent:main:main");
  const { events } = await store.projection("agent:main:main");
  await store.close();
  return { events, tokens: event.data.tokens };
}

async function main([folder, ...others]) {
  const result = await use(require("@openclaw/core"), folder);
  const major = Number(process.versions.node.split(".")[0]);
  // Further folders have copies of their own.
  for (const [index, other] of others.entries()) {
    const copy = require(require.resolve("@openclaw/core", { paths: [other] }));
    if (copy === require("@openclaw/core")) throw new Error("it is the same copy");
    Object.assign(result, { [`copy${index + 1}`]: await use(copy, join(folder, `copy ${index}`)) });
  }
  return { major, ...result };
}

if (!isMainThread) {
  use(require("@openclaw/core"), workerData);
} else if (process.argv[2] === "--workers") {
  let ended = 0;
  for (let index = 0; index < 3; index++) {
    const folder = join(process.argv[3], String(index));
    new Worker(__filename, { workerData: folder }).on("exit", (code) => {
      if (code === 0 && ++ended === 3) console.log("3 workers");
    });
  }
} else {
  main(process.argv.slice(2)).then((result) => console.log(JSON.stringify(result)));
}
