import assert from "node:assert/strict";
import { test } from "node:test";
import { renderTable } from "./format-table.ts";

test("renderTable() makes columns as wide as their widest line, and rows as high as their highest cell", () => {
  const lines = renderTable(
    ["ID", "Paths", "Size"],
    [
      [["a1"], ["/home", "/var/lib"], ["7 B"]],
      [["b2"], [], ["12 B"]],
    ],
    new Set([2]),
  );
  assert.deepEqual(lines, [
    "ID  Paths     Size",
    "------------------",
    "a1  /home      7 B",
    "    /var/lib",
    "b2            12 B",
    "------------------",
  ]);
});
