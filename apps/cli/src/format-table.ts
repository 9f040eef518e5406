/** A table of text for people: columns as wide as their widest line, cells of several lines, rules above and below. */

/** One row: a cell for each column, each with its lines. */
export type Row = readonly (readonly string[])[];

/** The lines of the table. @param heads one for each column; @param ends which columns are set flush right */
export function renderTable(heads: readonly string[], rows: readonly Row[], ends: ReadonlySet<number> = new Set()): string[] {
  const widths = heads.map((head, column) => {
    let width = head.length;
    for (const row of rows) for (const line of row[column] ?? []) width = Math.max(width, line.length);
    return width;
  });
  const draw = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (ends.has(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd();
  const rule = "-".repeat(
    Math.max(
      0,
      widths.reduce((sum, width) => sum + width + 2, -2),
    ),
  );
  const body = rows.flatMap((row) => {
    const height = Math.max(1, ...row.map((cell) => cell.length));
    return Array.from({ length: height }, (_, line) => draw(heads.map((_head, column) => row[column]?.[line] ?? "")));
  });
  return [draw(heads), rule, ...body, rule];
}
