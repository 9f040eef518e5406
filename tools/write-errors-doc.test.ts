import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { docPath, loadCodes, renderErrorsDoc } from "./write-errors-doc.ts";

const root = join(import.meta.dirname, "..");
const sources = new Map(
  globSync("{packages,apps}/*/src/**/*.ts", { cwd: root })
    .filter((path) => !path.endsWith(".test.ts"))
    .map((path) => [path, readFileSync(join(root, path), "utf8")]),
);

async function listDeclared(): Promise<Set<string>> {
  return new Set([...(await loadCodes()).values()].flatMap((codes) => [...codes.keys()]));
}

test("docs/errors.md says what the packages declare", async () => {
  assert.equal(readFileSync(docPath, "utf8"), await renderErrorsDoc(), "run `npm run format`");
});

test("every code has guidance that is a whole sentence", async () => {
  for (const codes of (await loadCodes()).values()) {
    for (const [code, { guidance }] of codes) assert.match(guidance, /^[A-Z`].{10,}\.$/s, `guidance of ${code}`);
  }
});

test("every code that is thrown is declared", async () => {
  const declared = await listDeclared();
  const unknown: string[] = [];
  for (const [path, text] of sources) {
    for (const [, code = ""] of text.matchAll(/new Failure\(\s*"([^"]*)"/g)) if (!declared.has(code)) unknown.push(`${code} in ${path}`);
  }
  assert.deepEqual(unknown, []);
});

test("every declared code is used", async () => {
  const texts = [...sources].map(([path, text]) =>
    basename(path) === "errors.ts" ? [...text.matchAll(/new Failure\(\s*"[^"]*"/g)].join("\n") : text,
  );
  const unused = [...(await listDeclared())].filter((code) => !texts.some((text) => text.includes(`"${code}"`)));
  assert.deepEqual(unused, []);
});
