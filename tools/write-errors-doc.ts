/** Writes docs/errors.md from the codes that the packages and apps declare; `--check` only says whether it is up to date. */

import { globSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { type CodeEntry, type FailureKind, listCodes } from "@granary/base/errors";

const root = join(import.meta.dirname, "..");
export const docPath: string = join(root, "docs/errors.md");

const kinds: Readonly<Record<FailureKind, string>> = {
  invalid: "What was asked cannot be done as asked. Change the request.",
  notFound: "What was named is not there.",
  conflict: "What is there does not agree with what was asked.",
  denied: "Not allowed, or not with this password.",
  unavailable: "Not possible now; the same call may succeed later. The only kind that is tried again by itself.",
  exhausted: "Something is used up: space, memory, handles.",
  cancelled: "Stopped on request.",
  corrupt: "Data is not what was written. Never tried again, never passed over.",
  unsupported: "This version, or this machine, cannot do it.",
  bug: "A fault of the program itself.",
};

/** Loads every `errors.ts`, each of which declares its codes; answers the room's name with its codes, lowest room first. */
export async function loadCodes(): Promise<Map<string, Map<string, CodeEntry>>> {
  const sections = new Map<string, Map<string, CodeEntry>>();
  const seen = new Set<string>();
  const paths = [...globSync("packages/*/src/errors.ts", { cwd: root }), ...globSync("apps/*/src/errors.ts", { cwd: root })].sort(
    (a, b) => Number(b.startsWith("packages/")) - Number(a.startsWith("packages/")) || a.localeCompare(b),
  );
  for (const path of paths) {
    await import(pathToFileURL(join(root, path)).href);
    const added = [...listCodes()].filter(([code]) => !seen.has(code));
    for (const [code] of added) seen.add(code);
    sections.set(basename(dirname(dirname(path))), new Map(added));
  }
  return sections;
}

/** The whole text of docs/errors.md. */
export async function renderErrorsDoc(): Promise<string> {
  const lines = [
    "# Errors",
    "",
    "<!-- Written by tools/write-errors-doc.ts from the errors.ts of each package; do not edit. -->",
    "",
    "Every error has a stable code, a kind that decides what the program does about it, a message with the facts, and what you can do.",
    "With `--json` an error is one object with `code`, `kind`, `message` and `details`.",
    "",
    "| Kind | What it means |",
    "|---|---|",
    ...Object.entries(kinds).map(([kind, meaning]) => `| \`${kind}\` | ${meaning} |`),
  ];
  for (const [room, codes] of await loadCodes()) {
    lines.push("", `## ${room}`, "", "| Code | Kind | What to do |", "|---|---|---|");
    for (const [code, { kind, guidance }] of codes) lines.push(`| \`${code}\` | \`${kind}\` | ${guidance.replaceAll("|", "\\|")} |`);
  }
  return `${lines.join("\n")}\n`;
}

if (import.meta.main) {
  const text = await renderErrorsDoc();
  if (!process.argv.includes("--check")) {
    writeFileSync(docPath, text);
  } else if (readFileSync(docPath, "utf8") !== text) {
    console.error("docs/errors.md is not what the errors.ts files say; run `npm run format`");
    process.exitCode = 1;
  }
}
