// Makes the component: node build.mjs [--wit FOLDER] [--out FILE] [--debug]
//
// All of WASI is disabled: the component imports nothing, and nothing that a stage must not ask can be asked. With
// --debug it may write to standard error, which tapeline shows when the stage traps: use that one to find a mistake.

import { cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { chdir } from "node:process";
import { parseArgs } from "node:util";

import { componentize } from "@bytecodealliance/componentize-js";

const WITHOUT_WASI = ["stdio", "random", "clocks", "http", "fetch-event"];
const here = import.meta.dirname;

const { values } = parseArgs({
  options: {
    wit: { type: "string", default: join(here, "../../wit") },
    out: { type: "string", default: join(here, "alarm.wasm") },
    debug: { type: "boolean", default: false },
  },
});
const [wit, out] = [resolve(values.wit), resolve(values.out)];

// The paths of modules are given to the engine with blanks between them, so that they must not have any.
const place = await mkdtemp(join(tmpdir(), "alarm-js-"));
try {
  await cp(join(here, "src"), join(place, "src"), { recursive: true });
  chdir(place);
  const { component, imports } = await componentize({
    sourcePath: join(place, "src/component.js"),
    witPath: wit,
    worldName: "stage",
    disableFeatures: values.debug ? WITHOUT_WASI.filter((feature) => feature !== "stdio") : WITHOUT_WASI,
  });
  if (imports.length > 0) {
    throw new Error(`a stage imports nothing, but this one does: ${JSON.stringify(imports)}`);
  }
  await mkdir(dirname(out), { recursive: true });
  await writeFile(`${out}.unfinished`, component);
  await rename(`${out}.unfinished`, out);
  console.error(`${out}: ${component.length} bytes`);
} finally {
  chdir(here);
  await rm(place, { recursive: true });
}
