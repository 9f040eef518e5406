/** The report: tables as Markdown, which a terminal shows as well as a page does, and the charts. */

import { type Chart, drawChart, type Panel } from "./charts.ts";
import { type Figure, findBytesPerBlob, findRatio, findSpread, type Spread } from "./summary.ts";
import { isMet, judge, type Verdict } from "./targets.ts";
import {
  type DatasetKey,
  datasetKeys,
  type Operation,
  operations,
  operationTitles,
  type ProgramName,
  programNames,
  type Results,
} from "./vocabulary.ts";

/** A table whose columns line up as text too; the first column is left-aligned, the others right. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(3, title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (column === 0 ? (cells[column] ?? "").padEnd(width) : (cells[column] ?? "").padStart(width))).join(" | ")} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? `${"-".repeat(width + 2)}` : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

/** The verdicts: a row for each target, a column for each data set. */
export function renderVerdicts(results: Results): string {
  const verdicts = judge(results);
  const rows = [...new Set(verdicts.map(({ target }) => target))].map((target) => {
    const own = verdicts.filter((verdict) => verdict.target === target);
    const answers = own.map(isMet).filter((answer) => answer !== undefined);
    const summary = answers.length === 0 ? "not measured" : answers.every(Boolean) ? "met" : "NOT MET";
    const limit = own[0] === undefined ? "" : formatValue(own[0], own[0].limit);
    const cells = datasetKeys.map((key) => {
      const verdict = own.find(({ dataset }) => dataset === key);
      if (verdict?.value === undefined) return "";
      return `${formatValue(verdict, verdict.value)}${isMet(verdict) === true ? "" : " ✖"}`;
    });
    return [target, `≤ ${limit}`, ...cells, summary];
  });
  return renderTable(["Target", "limit", ...datasetKeys.map((key) => `(${key})`), "verdict"], rows);
}

/** All figures of one data set, as tables. */
export function renderDataset(results: Results, dataset: DatasetKey): string {
  const measured = operations.filter((operation) =>
    programNames.some((program) => findSpread(results, { dataset, operation, program }, "wallSeconds") !== undefined),
  );
  const rows = (render: (operation: Operation) => readonly string[], of: readonly Operation[] = measured): string[][] =>
    of.map((operation) => [operationTitles[operation], ...render(operation)]);
  const spreads = (operation: Operation, figure: Figure): (Spread | undefined)[] =>
    programNames.map((program) => findSpread(results, { dataset, operation, program }, figure));
  const ratio = (operation: Operation, program: ProgramName): string => {
    const found = findRatio(results, { dataset, operation, program }, "wallSeconds");
    return found === undefined ? "" : found.toFixed(2);
  };
  const table = (figure: Figure, format: (value: number) => string, of: readonly Operation[]): string[][] =>
    rows((operation) => spreads(operation, figure).map((spread) => (spread === undefined ? "" : format(spread.median))), of);
  return [
    "Wall time in seconds, median (least–most); the last two columns are the ratios of our median to theirs:",
    "",
    renderTable(
      ["Wall time", ...programNames, "÷ restic", "÷ borg-lz4"],
      rows((operation) => [
        ...spreads(operation, "wallSeconds").map(formatSpread),
        ratio(operation, "restic"),
        ratio(operation, "borg-lz4"),
      ]),
    ),
    "",
    renderTable(["CPU seconds", ...programNames], table("cpuSeconds", formatSeconds, measured)),
    "",
    renderTable(["Peak memory, MB", ...programNames], table("peakBytes", formatMegabytes, measured)),
    "",
    renderTable(
      ["Repository, MB", ...programNames],
      table(
        "repositoryBytes",
        formatMegabytes,
        measured.filter((operation) => ["first-backup", "one-percent", "prune"].includes(operation)),
      ),
    ),
  ].join("\n");
}

/** What a data set holds, in one sentence. */
export function describeDataset({ datasets }: Results, key: DatasetKey): string {
  const facts = datasets[key];
  if (facts === undefined) return `(${key})`;
  const [files, megabytes] = [facts.files, facts.sizeBytes / 1e6].map((value) => Math.round(value).toLocaleString("en"));
  return `(${key}) ${facts.title}: ${files} ${facts.files === 1 ? "file" : "files"}, ${megabytes} MB`;
}

/** How much memory a blob adds, by program. */
export function renderBytesPerBlob(results: Results): string {
  const row = programNames.map((program) => findBytesPerBlob(results, program)?.toFixed(0) ?? "");
  return renderTable(["Peak memory for each added blob, bytes", ...programNames], [["From a third of (d) to all of it", ...row]]);
}

/** The page docs/benchmarks/README.md. */
export function renderPage(results: Results): string {
  const { machine, versions } = results;
  const keys = datasetKeys.filter((key) => results.datasets[key] !== undefined);
  const repeats = new Set(results.samples.map(({ repeat }) => repeat)).size;
  const gibibytes = Math.round(machine.memoryBytes / 2 ** 30);
  return [
    "# Benchmarks",
    "",
    "<!-- Written by tools/bench; do not edit. -->",
    "",
    `Measured ${results.startedAt.slice(0, 10)} by \`npm run bench\` on ${machine.processor}, ${machine.cores} cores, ${gibibytes} GiB of memory, ${machine.kernel}.`,
    `Medians of ${repeats}. ${programNames.map((name) => `${name} ${versions[name] ?? "not measured"}`).join(", ")}.${results.scale === 1 ? "" : ` **Data at ${results.scale} of its full size.**`}`,
    "",
    "![Wall time of the first backup](first-backup.svg)",
    "",
    "![Wall time of a restore](restore.svg)",
    "",
    "## Targets",
    "",
    "Ratios of medians, ours to theirs, on each data set; ✖ marks what is above the limit.",
    "",
    renderVerdicts(results),
    "",
    "![Ratios of medians, granary to the others](ratios.svg)",
    "",
    "## Figures",
    ...keys.flatMap((key) => [
      "",
      `### ${describeDataset(results, key)}`,
      "",
      `Changed for "1 % changed": ${results.datasets[key]?.change ?? ""}.`,
      "",
      renderDataset(results, key),
    ]),
    "",
    "### Memory",
    "",
    renderBytesPerBlob(results),
    "",
    ...howItWasMade,
    "",
    "### Proven on the way",
    "",
    ...renderProofs(results.proofs),
    "",
    "Every figure of every run: [results.json](results.json).",
    "",
  ].join("\n");
}

const howItWasMade = [
  "## How it was made",
  "",
  "- **Programs** run with their defaults: an encrypted repository in a local folder, on the disk that holds the data. granary is packed and",
  "  installed as a user would install it, and its launcher is measured with it. `borg-lz4` and `borg-zstd` are borg with",
  "  `--compression lz4`, its default, and `zstd`; its prune is `prune` and `compact`. Each has caches of its own, empty before the first backup.",
  "- **Order**: for each repeat and operation every program runs once, in an order that rotates. Repositories are new in each repeat; the change",
  "  is made once and is the same for all.",
  "- **Page cache**: warm. The data is read once before each repeat, each repository before each operation on it, then `sync`.",
  "  What a program leaves to the kernel to write later is not in its time.",
  "- **Wall time** is from start to exit, **CPU** is user and system time of all its threads and children, **peak memory** that of the largest",
  "  process, both by the kernel's account (GNU time). **Repository** is the sum of its files' sizes.",
  "- **Data**: (a) are the first 50,000 files of /usr and what follows it, smallest passed over until they make 1.5 GB, none above 4 MiB; (b) and",
  "  (d) come from a seed, the text of (b) shrinking to 35 % with `zstd -1`; (c) is made with `mkfs.ext4 -d` from 600 MB of system files. Each",
  "  set also has one small file that is the newest, because borg reads the newest file of a backup again the next time.",
];

function renderProofs(proofs: readonly string[]): string[] {
  const byClaim = new Map<string, Map<string, string[]>>();
  for (const proof of proofs) {
    const match = /^\((\w)\) ([\w-]+): (.+)$/.exec(proof);
    if (match === null) continue;
    const [, dataset = "", program = "", claim = ""] = match;
    const programs = byClaim.get(claim) ?? new Map<string, string[]>();
    programs.set(program, [...(programs.get(program) ?? []), dataset]);
    byClaim.set(claim, programs);
  }
  return [...byClaim].map(
    ([claim, programs]) => `- ${claim}: ${[...programs].map(([program, sets]) => `${program} (${sets.join("")})`).join(", ")}`,
  );
}

/** The charts by file name. */
export function drawCharts(results: Results): Record<string, string> {
  const { machine } = results;
  const subtitle = `seconds, median; less is better; ${machine.processor}, ${machine.cores} cores`;
  return {
    "first-backup.svg": drawChart({ title: "First backup", subtitle, panels: drawTimes(results, "first-backup") }),
    "restore.svg": drawChart({ title: "Restore", subtitle, panels: drawTimes(results, "restore") }),
    "ratios.svg": drawChart(ratioChart(results)),
  };
}

function drawTimes(results: Results, operation: Operation): Panel[] {
  return datasetKeys.flatMap((dataset) => {
    const bars = programNames.flatMap((program) => {
      const median = findSpread(results, { dataset, operation, program }, "wallSeconds")?.median;
      if (median === undefined) return [];
      return [{ label: program, value: median, text: `${formatSeconds(median)} s`, isOurs: program === "granary" }];
    });
    return bars.length === 0 ? [] : [{ title: `(${dataset}) ${results.datasets[dataset]?.title ?? ""}`, bars }];
  });
}

function ratioChart(results: Results): Chart {
  const verdicts = judge(results).filter(({ unit, value }) => unit === "ratio" && value !== undefined);
  const panels = [...new Set(verdicts.map(({ target }) => target))].map((title) => ({
    title,
    bars: verdicts
      .filter(({ target }) => target === title)
      .map(({ dataset, value = 0, limit }) => ({ label: `(${dataset})`, value, text: value.toFixed(2), isOurs: value <= limit, limit })),
  }));
  return {
    title: "granary to the others",
    subtitle: "ratio of medians; less is better; the mark is the target, grey bars miss it",
    panels,
  };
}

function formatSpread(spread: Spread | undefined): string {
  if (spread === undefined) return "";
  const { median, least, most } = spread;
  return `${formatSeconds(median)} (${formatSeconds(least)}–${formatSeconds(most)})`;
}

function formatSeconds(seconds: number): string {
  return seconds.toFixed(seconds < 10 ? 2 : 1);
}

function formatMegabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
}

function formatValue({ unit }: Pick<Verdict, "unit">, value: number): string {
  return unit === "ratio" ? value.toFixed(2) : `${value.toFixed(0)} ${unit}`;
}
