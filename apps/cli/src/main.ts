/** The command `granary`: from the arguments to an exit code. Loads next to nothing itself, so that it starts quickly. */

import { version } from "./version.ts";

const [first, ...more] = process.argv.slice(2);
if ((first === "--version" || first === "-V") && more.length === 0) {
  process.stdout.write(`${version}\n`);
} else {
  const [{ readArguments }, { runProgram }] = await Promise.all([import("./raw-arguments.ts"), import("./program.ts")]);
  await runProgram(readArguments());
}
