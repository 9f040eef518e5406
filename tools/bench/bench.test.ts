import assert from "node:assert/strict";
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { drawChart, escapeXml } from "./charts.ts";
import { pickSome } from "./datasets.ts";
import { estimateRest, estimateSeconds, formatMinutes } from "./estimate.ts";
import { addUsages, parseAccount, runMeasured, timeProgram } from "./measured-run.ts";
import { parseOptions } from "./options.ts";
import { drawCharts, renderPage, renderTable, renderVerdicts } from "./report.ts";
import { openSeededBytes } from "./seeded-bytes.ts";
import { openSeededText } from "./seeded-text.ts";
import { findNeeded, rotate } from "./session.ts";
import { computeMedian, findBytesPerBlob, findRatio, findSpread } from "./summary.ts";
import { copyFiles, listSystemFiles, selectFiles, sumSizes, takeBytes } from "./system-files.ts";
import { isMet, judge } from "./targets.ts";
import { compareTrees, countTree } from "./tree-compare.ts";
import { datasetKeys, operations, programNames, type Results, type Sample } from "./vocabulary.ts";

const tree = mkdtempSync(join(tmpdir(), "granary-bench-"));
after(() => rmSync(tree, { recursive: true }));

const wallSeconds = { granary: 4, restic: 10, "borg-lz4": 8, "borg-zstd": 9 };

/** Three repeats in which granary takes 4 s of restic's 10 and borg-lz4's 8, the middle repeat being the median. */
function makeResults(): Results {
  const facts = { title: "files & <things>", files: 2999, folders: 1, sizeBytes: 3e6, change: "1 % of them", partEntries: 1000 };
  const samples: Sample[] = [];
  for (const repeat of [1, 2, 3])
    for (const dataset of datasetKeys)
      for (const operation of operations)
        for (const program of programNames) {
          const wall = wallSeconds[program] + (repeat - 2) * 0.5;
          const peakBytes = operation === "first-part" ? 100e6 : 100.1e6;
          samples.push({ dataset, repeat, operation, program, wallSeconds: wall, cpuSeconds: wall * 2, peakBytes, repositoryBytes: 1e6 });
        }
  return {
    schema: 1,
    startedAt: "2026-01-31T08:00:00.000Z",
    scale: 1,
    machine: { processor: "A <fast> CPU", cores: 2, memoryBytes: 8 * 2 ** 30, kernel: "Linux 6.1" },
    versions: { granary: "0.1.0", restic: "0.14.0" },
    datasets: { a: facts, b: facts, c: facts, d: facts },
    samples,
    proofs: ["(a) granary: restored every byte", "(b) granary: restored every byte", "(a) restic: restored every byte"],
  };
}

test("computeMedian() is the middle value, or the mean of the two in the middle", () => {
  assert.equal(computeMedian([9, 1, 5]), 5);
  assert.equal(computeMedian([4, 1, 2, 100]), 3);
  assert.throws(() => computeMedian([]), RangeError);
  fc.assert(
    fc.property(fc.array(fc.integer(), { minLength: 1 }), (values) => {
      const median = computeMedian(values);
      const notAbove = values.filter((value) => value <= median).length;
      const notBelow = values.filter((value) => value >= median).length;
      assert.ok(notAbove * 2 >= values.length && notBelow * 2 >= values.length);
    }),
  );
});

test("findSpread() and findRatio() take medians per data set, operation and program", () => {
  const results = makeResults();
  const cell = { dataset: "a", operation: "restore", program: "restic" } as const;
  assert.deepEqual(findSpread(results, cell, "wallSeconds"), { median: 10, least: 9.5, most: 10.5, count: 3 });
  assert.equal(findRatio(results, cell, "wallSeconds"), 0.4);
  assert.equal(findRatio({ samples: [] }, cell, "wallSeconds"), undefined);
});

test("findBytesPerBlob() divides the memory that two thirds of the files add by their number", () => {
  assert.equal(findBytesPerBlob(makeResults(), "granary"), 50);
});

test("judge() compares with the better of two, and with the worst operation for memory", () => {
  const verdicts = judge(makeResults());
  const find = (target: string, dataset = "a"): number | undefined =>
    verdicts.find((verdict) => verdict.target === target && verdict.dataset === dataset)?.value;
  assert.equal(find("First backup, time, to restic"), 0.4);
  assert.equal(find("No change, time, to the better of restic and borg-lz4", "d"), 0.5);
  assert.equal(find("Peak memory, greatest of all operations"), 100.1);
  assert.equal(find("Memory for each added blob", "d"), 50);
  assert.ok(verdicts.every((verdict) => isMet(verdict) === true));
});

test("a target is met at its limit, missed above it, and not measured without figures", () => {
  assert.equal(isMet({ value: 0.45, limit: 0.45 }), true);
  assert.equal(isMet({ value: 0.451, limit: 0.45 }), false);
  const empty = judge({ samples: [], datasets: {} });
  assert.ok(empty.length > 0 && empty.every((verdict) => isMet(verdict) === undefined));
  const withoutBorg = makeResults().samples.filter(({ program }) => program !== "borg-lz4");
  const better = judge({ samples: withoutBorg, datasets: {} }).filter(({ target }) => target.includes("the better of"));
  assert.ok(
    better.every(({ value }) => value === undefined),
    "the better of two is not known from one",
  );
});

test("renderVerdicts() says what is met, and marks what is not", () => {
  const results = makeResults();
  assert.match(renderVerdicts(results), /\| First backup, time, to restic +\| +≤ 0\.45 \| +0\.40 \| +0\.40 \| +0\.40 \| +0\.40 \| +met \|/);
  const slow = results.samples.map((sample) =>
    sample.program === "granary" && sample.dataset === "b" ? { ...sample, wallSeconds: sample.wallSeconds * 3 } : sample,
  );
  assert.match(renderVerdicts({ ...results, samples: slow }), /First backup, time, to restic .*0\.40 \| 1\.20 ✖ \| +0\.40.*NOT MET/);
});

test("renderTable() makes rows of one width", () => {
  const lines = renderTable(
    ["What", "n"],
    [
      ["a long name", "1"],
      ["b", "1000"],
    ],
  ).split("\n");
  assert.deepEqual(lines, ["| What        |    n |", "|-------------|-----:|", "| a long name |    1 |", "| b           | 1000 |"]);
});

test("renderPage() names the machine by its processor, groups what was proven, and shows every data set", () => {
  const page = renderPage(makeResults());
  assert.match(page, /A <fast> CPU, 2 cores, 8 GiB of memory, Linux 6\.1/);
  assert.match(page, /- restored every byte: granary \(ab\), restic \(a\)/);
  for (const key of datasetKeys) assert.ok(page.includes(`### (${key}) `));
  assert.ok(!page.includes("undefined") && !page.includes("NaN"));
});

/** Fails unless `text` is XML whose elements nest, whose attributes are quoted, and which uses only known entities. */
function assertWellFormed(text: string): void {
  const open: string[] = [];
  let rest = text.replace(/<style>[^<]*<\/style>/, "").trim();
  while (rest !== "") {
    const match = /^(?:<(\/?)([a-z]+)((?: [\w:-]+="(?:[^<&"]|&#\d+;)*")*)(\/?)>|(?:[^<&]|&#\d+;)+)/i.exec(rest);
    assert.ok(match !== null, `not XML: ${rest.slice(0, 60)}`);
    const [whole, slash, name, , isEmpty] = match;
    if (name !== undefined && slash === "/") assert.equal(open.pop(), name);
    else if (name !== undefined && isEmpty !== "/") open.push(name);
    rest = rest.slice(whole.length);
    assert.ok(open.length > 0 || rest.trim() === "", "one element holds all others");
  }
  assert.deepEqual(open, []);
}

test("every chart is well-formed XML, draws within its frame, and names every value", () => {
  for (const [name, text] of Object.entries(drawCharts(makeResults()))) {
    assertWellFormed(text);
    const [, width = "", height = ""] = /viewBox="0 0 (\d+) (\d+)"/.exec(text) ?? [];
    for (const [, at = ""] of text.matchAll(/ (?:x|x1)="([\d.-]+)"/g))
      assert.ok(Number(at) >= 0 && Number(at) < Number(width), `${name}: x ${at}`);
    for (const [, at = ""] of text.matchAll(/ (?:y|y1)="([\d.-]+)"/g))
      assert.ok(Number(at) >= 0 && Number(at) < Number(height), `${name}: y ${at}`);
    assert.doesNotMatch(text, /NaN|undefined|Infinity/);
  }
  assert.match(drawCharts(makeResults())["first-backup.svg"] ?? "", />10\.0 s</);
});

test("drawChart() survives zeros and text that is not XML", () => {
  const bars = [{ label: "<b>", value: 0, text: `"0" & 'none'`, isOurs: true, limit: 0 }];
  assertWellFormed(drawChart({ title: "a < b", subtitle: "", panels: [{ title: "]]>", bars }] }));
  assertWellFormed(drawChart({ title: "nothing", subtitle: "", panels: [] }));
  fc.assert(fc.property(fc.string(), (text) => assert.doesNotMatch(escapeXml(text), /[<>"']|&(?!#\d+;)/)));
});

test("parseAccount() reads GNU time's account and refuses anything else", () => {
  assert.deepEqual(parseAccount("1.50 0.25 2048\n"), { cpuSeconds: 1.75, peakBytes: 2 * 2 ** 20 });
  for (const text of ["", "1.5 0.2", "Command exited with non-zero status 1\n1.50 0.25 2048\n"])
    assert.throws(() => parseAccount(text), /GNU time/);
});

test("addUsages() adds times and takes the greater memory", () => {
  const [one, other] = [
    { wallSeconds: 1, cpuSeconds: 2, peakBytes: 30 },
    { wallSeconds: 4, cpuSeconds: 5, peakBytes: 20 },
  ];
  assert.deepEqual(addUsages([one, other]), { wallSeconds: 5, cpuSeconds: 7, peakBytes: 30 });
});

test("runMeasured() counts the memory and the time of a child of the command, and fails with what the command printed", {
  skip: existsSync(timeProgram) ? false : `needs ${timeProgram}`,
}, async () => {
  const script = "const b = Buffer.alloc(200e6, 1); const end = Date.now() + 300; while (Date.now() < end); process.exit(b[0] - 1)";
  const environment = { NODE: process.execPath };
  const words = ["sh", "-c", `"$NODE" -e '${script}'; exit $?`];
  const usage = await runMeasured({ words, folder: tree, environment: { ...environment, PATH: process.env.PATH ?? "" } }, tree);
  assert.ok(usage.peakBytes > 200e6 && usage.cpuSeconds > 0.2 && usage.wallSeconds > 0.3, JSON.stringify(usage));
  const failing = { words: ["/bin/sh", "-c", "echo it broke; exit 3"], folder: tree, environment: {} };
  await assert.rejects(runMeasured(failing, tree), /ended with 3:\nit broke/);
});

test("parseOptions() has defaults, reads lists in the order of the vocabulary, and names what it does not know", () => {
  const defaults = parseOptions([]);
  assert.deepEqual([defaults.repeats, defaults.scale, defaults.isWritten, defaults.isKept], [5, 1, true, false]);
  assert.deepEqual(defaults.operations, operations);
  const quick = parseOptions(["--quick", "--datasets", "d,a", "--programs", "restic", "--work", "x"]);
  assert.deepEqual([quick.repeats, quick.datasets, quick.programs, quick.isKept], [1, ["a", "d"], ["restic"], true]);
  assert.ok(quick.scale < 0.1);
  assert.throws(() => parseOptions(["--datasets", "a,e"]), /--datasets does not know "e"/);
  assert.throws(() => parseOptions(["--repeats", "none"]), /--repeats needs a number/);
  assert.throws(() => parseOptions(["--resume"]), /--work/);
  assert.throws(() => parseOptions(["--slow"]), /--slow/);
});

test("findNeeded() adds what an operation needs, and the part only where there is one", () => {
  assert.deepEqual(findNeeded(["prune"], "a"), ["first-backup", "one-percent", "prune"]);
  assert.deepEqual(findNeeded(["restore"], "d"), ["first-backup", "restore"]);
  assert.deepEqual(findNeeded(["first-part"], "d"), ["first-part"]);
  assert.deepEqual(findNeeded(operations, "c"), operations.slice(1));
});

test("rotate() gives every member every place", () => {
  assert.deepEqual(rotate([1, 2, 3], 4), [2, 3, 1]);
  assert.deepEqual(rotate([], 4), []);
});

test("estimates shrink as samples arrive, and follow the machine's speed", () => {
  const extent = { ...parseOptions([]), repeats: 3 };
  const { samples } = makeResults();
  const whole = estimateSeconds(extent);
  assert.equal(estimateRest(extent, []), whole);
  const some = samples.slice(0, 84);
  assert.ok(estimateRest(extent, some) < whole);
  const slower = some.map((sample) => ({ ...sample, wallSeconds: sample.wallSeconds * 2 }));
  assert.ok(Math.abs(estimateRest(extent, slower) / estimateRest(extent, some) - 2) < 1e-9);
  assert.deepEqual([formatMinutes(5), formatMinutes(3900)], ["1 min", "1 h 05 min"]);
});

test("seeded bytes and text are the same for one seed whatever the sizes asked for, and differ for others", () => {
  for (const open of [openSeededBytes, openSeededText]) {
    const [whole, other] = [Buffer.alloc(300_000), Buffer.alloc(300_000)];
    open("one").fill(whole);
    open("other").fill(other);
    assert.ok(!whole.equals(other));
    const again = open("one");
    const first = Buffer.alloc(300_000);
    again.fill(first);
    assert.ok(first.equals(whole));
  }
  const [bytes, pieces] = [openSeededBytes("x"), openSeededBytes("x")];
  const [whole, piece] = [Buffer.alloc(100_000), Buffer.alloc(25_000)];
  bytes.fill(whole);
  for (let at = 0; at < whole.length; at += piece.length) {
    pieces.fill(piece);
    assert.ok(whole.subarray(at, at + piece.length).equals(piece));
  }
});

test("seeded text compresses like text with zstd's level 1, and seeded bytes not at all", () => {
  const text = Buffer.alloc(2 ** 22);
  openSeededText("x").fill(text);
  const ratio = text.length / zstdCompressSync(text, { params: { 100: 1 } }).length;
  assert.ok(ratio > 2.5 && ratio < 3.5, `ratio ${ratio}`);
  const bytes = Buffer.alloc(2 ** 20);
  openSeededBytes("x").fill(bytes);
  assert.ok(zstdCompressSync(bytes).length >= bytes.length);
});

test("pickSome() picks different members, the same for one seed, and never more than there are", () => {
  const list = Array.from({ length: 1000 }, (_, index) => index);
  const picked = pickSome(list, 100, openSeededBytes("x"));
  assert.equal(new Set(picked).size, 100);
  assert.deepEqual(picked, pickSome(list, 100, openSeededBytes("x")));
  assert.deepEqual(
    pickSome(list, 2000, openSeededBytes("x")).sort((one, other) => one - other),
    list,
  );
});

test("selectFiles() passes over the smallest, or the biggest, to come to the size wanted", () => {
  const files = Array.from({ length: 1000 }, (_, index) => ({ path: `/f/${index}`, sizeBytes: ((index * 7919) % 1000) * 100 }));
  const wanted = (sizeBytes: number): ReturnType<typeof selectFiles> => selectFiles(files, { count: 200, sizeBytes, maxFileBytes: 1e6 });
  for (const sizeBytes of [2e6, 10e6, 14e6]) {
    const taken = wanted(sizeBytes);
    assert.equal(taken.length, 200);
    assert.ok(Math.abs(sumSizes(taken) / sizeBytes - 1) < 0.15, `${sumSizes(taken)} for ${sizeBytes}`);
  }
  assert.equal(wanted(1e9).length, 200, "the number is kept when the size cannot be reached");
  assert.equal(selectFiles(files, { count: 5000, sizeBytes: 1e9, maxFileBytes: 1e6 }).length, 1000);
  assert.deepEqual(
    takeBytes(files, { sizeBytes: 1, maxFileBytes: 1e6 }).map(({ path }) => path),
    ["/f/0", "/f/1"],
  );
});

test("copies of listed files compare equal, and compareTrees() names every kind of difference", () => {
  const source = join(tree, "source");
  mkdirSync(join(source, "folder"), { recursive: true });
  writeFileSync(join(source, "folder/one"), "content");
  writeFileSync(join(source, "two"), "");
  symlinkSync("two", join(source, "link"));
  const listed = listSystemFiles([source]);
  assert.deepEqual(
    listed.map(({ path, sizeBytes }) => [path.slice(source.length), sizeBytes]),
    [
      ["/folder/one", 7],
      ["/two", 0],
    ],
  );
  const differ = (name: string, change: (copy: string) => void, expected: RegExp): void => {
    const [one, other] = [join(tree, name, "one", source), join(tree, name, "other", source)];
    copyFiles(listed, join(tree, name, "one"));
    copyFiles(listed, join(tree, name, "other"));
    const setTimes = (copy: string): void => {
      for (const path of [join(copy, "folder"), copy]) utimesSync(path, 1, 1);
    };
    setTimes(one);
    setTimes(other);
    compareTrees(one, other);
    change(other);
    setTimes(other);
    assert.throws(() => compareTrees(one, other), expected);
  };
  const rewrite = (path: string, text: string): void => {
    const { atime, mtime } = lstatSync(path);
    writeFileSync(path, text);
    utimesSync(path, atime, mtime);
  };
  differ("missing", (copy) => rmSync(join(copy, "two")), /number of entries should be 2 and is 1/);
  differ("time", (copy) => utimesSync(join(copy, "two"), 1, 1), /two is not what was backed up: mtimeNs/);
  differ("mode", (copy) => chmodSync(join(copy, "two"), 0o700), /two is not what was backed up: mode/);
  differ("size", (copy) => rewrite(join(copy, "two"), "x"), /two is not what was backed up: the size should be 0 and is 1/);
  differ("byte", (copy) => rewrite(join(copy, "folder/one"), "cOntent"), /one is not what was backed up: the content/);
  assert.deepEqual(countTree(source), { files: 3, folders: 2, sizeBytes: 7 + 3 });
});
