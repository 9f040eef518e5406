import type { Command } from "commander";
import { addExamples } from "./command-help.ts";
import { version } from "./version.ts";

/** `granary version` and `granary repo version`. */
export function configureVersion(command: Command): void {
  command
    .description("Prints the versions of the program and of Node, and the machine's kind.")
    .option("--json", "write them as JSON")
    .action((options: { json?: boolean }) => {
      const { arch, platform, version: node } = process;
      const facts = { message_type: "version", version, node_version: node.slice(1), os: platform, arch };
      const text = options.json === true ? JSON.stringify(facts) : `granary ${version} on node ${node.slice(1)}, ${platform}/${arch}`;
      process.stdout.write(`${text}\n`);
    });
  addExamples(command, [["version --json", "prints the versions for a program to read"]]);
}
