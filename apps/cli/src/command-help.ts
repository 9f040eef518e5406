import type { Command } from "commander";

/** One example: the command line, without `granary` when it begins with that, and what it does. */
export type Example = readonly [line: string, what: string];

/** Adds examples to the end of a command's help. */
export function addExamples(command: Command, examples: readonly Example[]): void {
  const lines = examples.map(([line, what]) => `  ${/^(?:repo|start|version) /.test(line) ? "granary " : ""}${line}\n      ${what}`);
  command.addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
}
