/** Bar charts as SVG, by hand: legible on light and on dark pages, with every value written beside its bar. */

/** One bar. */
export interface Bar {
  readonly label: string;
  readonly value: number;
  /** What is written beside it. */
  readonly text: string;
  /** Drawn in the accent colour. */
  readonly isOurs: boolean;
  /** A mark across the bar's row, in the same measure as `value`. */
  readonly limit?: number;
}

/** Bars that have one scale, under a title. */
export interface Panel {
  readonly title: string;
  readonly bars: readonly Bar[];
}

/** A chart: panels in two columns, each with a scale of its own, so that panels are not to be compared with one another. */
export interface Chart {
  readonly title: string;
  readonly subtitle: string;
  readonly panels: readonly Panel[];
}

const columns = 2;
const panelWidth = 400;
const labelWidth = 92;
const barWidthMax = 190;
const rowHeight = 20;
const barHeight = 13;
const panelHeadHeight = 26;
const panelGap = 16;
const headHeight = 54;

const style = `
  text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .page { fill: #ffffff; }
  .title { font-size: 16px; font-weight: 600; }
  .subtitle, .value { fill: #59636e; }
  .panel { font-weight: 600; }
  .ours { fill: #0969da; }
  .theirs { fill: #afb8c1; }
  .limit { stroke: #cf222e; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    text { fill: #f0f6fc; }
    .subtitle, .value { fill: #9198a1; }
    .ours { fill: #4493f8; }
    .theirs { fill: #656c76; }
    .limit { stroke: #f85149; }
  }`;

/** Draws a chart. */
export function drawChart(chart: Chart): string {
  const rows: Panel[][] = [];
  for (let at = 0; at < chart.panels.length; at += columns) rows.push(chart.panels.slice(at, at + columns));
  const parts: string[] = [];
  let y = headHeight;
  for (const row of rows) {
    for (const [column, panel] of row.entries()) parts.push(drawPanel(panel, 10 + column * panelWidth, y));
    y += panelHeadHeight + Math.max(...row.map(({ bars }) => bars.length)) * rowHeight + panelGap;
  }
  const width = 20 + columns * panelWidth;
  const description = chart.panels
    .map(({ title, bars }) => `${title}: ${bars.map(({ label, text }) => `${label} ${text}`).join(", ")}`)
    .join("; ");
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img">`,
    `<title>${escapeXml(chart.title)}</title>`,
    `<desc>${escapeXml(description)}</desc>`,
    `<style>${style}\n</style>`,
    // Its own ground: a viewer that knows no colour schemes may still lay it on a dark page.
    `<rect class="page" x="0" y="0" width="${width}" height="${y}" rx="6"/>`,
    `<text class="title" x="10" y="24">${escapeXml(chart.title)}</text>`,
    `<text class="subtitle" x="10" y="42">${escapeXml(chart.subtitle)}</text>`,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

function drawPanel({ title, bars }: Panel, x: number, y: number): string {
  const most = Math.max(...bars.flatMap(({ value, limit }) => [value, limit ?? 0]), Number.MIN_VALUE);
  const scale = (value: number): number => Math.round((value / most) * barWidthMax * 10) / 10;
  const left = x + labelWidth;
  const lines = [`<text class="panel" x="${x}" y="${y + 14}">${escapeXml(title)}</text>`];
  for (const [index, bar] of bars.entries()) {
    const top = y + panelHeadHeight + index * rowHeight;
    const baseline = top + barHeight - 2;
    const end = left + Math.max(scale(bar.value), bar.limit === undefined ? 0 : scale(bar.limit));
    lines.push(
      `<text x="${left - 6}" y="${baseline}" text-anchor="end">${escapeXml(bar.label)}</text>`,
      `<rect class="${bar.isOurs ? "ours" : "theirs"}" x="${left}" y="${top}" width="${Math.max(1, scale(bar.value))}" height="${barHeight}" rx="2"/>`,
      `<text class="value" x="${end + 6}" y="${baseline}">${escapeXml(bar.text)}</text>`,
    );
    if (bar.limit !== undefined) {
      const at = left + scale(bar.limit);
      lines.push(`<line class="limit" x1="${at}" x2="${at}" y1="${top - 2}" y2="${top + barHeight + 2}"/>`);
    }
  }
  return lines.join("\n");
}

/** Text as it may stand in XML, attributes included. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
