/** What the figures are measured on: the processor's name, and nothing that says whose machine it is. */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism, release, totalmem } from "node:os";
import { findTool } from "@granary/base/testing";
import { timeProgram } from "./measured-run.ts";
import type { MachineFacts } from "./vocabulary.ts";

/** Describes this machine. */
export function describeMachine(): MachineFacts {
  const processor = /^model name\s*:\s*(.+)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? process.arch;
  const kernel = /^\d+\.\d+(?:\.\d+)?/.exec(release())?.[0] ?? release();
  return { processor, cores: availableParallelism(), memoryBytes: totalmem(), kernel: `Linux ${kernel}` };
}

const neededPrograms = [
  { name: "restic", debianPackage: "restic" },
  { name: "borg", debianPackage: "borgbackup" },
  { name: "mkfs.ext4", debianPackage: "e2fsprogs" },
  { name: timeProgram, debianPackage: "time" },
];

/** Installs, through apt, what is missing of the programs that the benchmark runs. @throws Error when something stays missing */
export function installPrograms(): void {
  if (process.platform !== "linux") throw new Error("The benchmark runs on Linux only");
  const findMissing = (): typeof neededPrograms =>
    neededPrograms.filter(({ name }) => (name.startsWith("/") ? !existsSync(name) : findTool(name) === undefined));
  const packages = findMissing().map(({ debianPackage }) => debianPackage);
  if (packages.length === 0) return;
  if (process.getuid?.() === 0 && findTool("apt-get") !== undefined) {
    console.log(`bench: installing ${packages.join(" ")} with apt-get`);
    const options = { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, stdio: "inherit" } as const;
    spawnSync("apt-get", ["-qq", "update"], options);
    spawnSync("apt-get", ["-qq", "install", "--yes", "--no-install-recommends", ...packages], options);
  }
  const missing = findMissing();
  if (missing.length > 0)
    throw new Error(`The benchmark needs ${missing.map(({ name }) => name).join(", ")}: install ${packages.join(", ")}`);
}
