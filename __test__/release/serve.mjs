// A registry on a free port of the loopback interface, without an uplink. Prints its port and ends with its input.
//
//   node serve.mjs FOLDER
import { join } from "node:path";
import { runServer } from "verdaccio";

const [, , folder] = process.argv;

const app = await runServer({
  configPath: join(folder, "config.yaml"),
  storage: join(folder, "storage"),
  auth: { htpasswd: { file: join(folder, "htpasswd") } },
  uplinks: {},
  packages: { "**": { access: "$all", publish: "$authenticated" } },
  max_body_size: "50mb",
  log: { type: "stdout", format: "json", level: "http" },
  web: { enable: false },
});
app.listen(0, "127.0.0.1", function () {
  console.log(`PORT ${this.address().port}`);
});
process.stdin.resume().on("end", () => process.exit());
