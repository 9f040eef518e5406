import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type PlacedTargets, type Placements, placeTargets } from "./targets.ts";

/** What the snapshot would have: `/a/b` for a target, `/a/` for a directory above some; with the place on the disk of each. */
function flatten(placed: PlacedTargets): string[] {
  const lines: string[] = [];
  const visit = (placements: Placements, prefix: string): void => {
    for (const [name, placement] of placements) {
      if (placement.kind === "target") lines.push(`${prefix}/${name} = ${placement.directory === "/" ? "" : placement.directory}/${name}`);
      else {
        lines.push(`${prefix}/${name}/ = ${placement.path}`);
        visit(placement.children, `${prefix}/${name}`);
      }
    }
  };
  visit(placed.root, "");
  return lines.sort();
}

const list = (path: string): string[] => (path === "/" ? ["bin", "home"] : [`in ${path.split("/").at(-1)}`]);
const place = (...targets: string[]): string[] => flatten(placeTargets(targets, { directory: "/home/me", list }));

test("an absolute target has all its components in the snapshot", () => {
  assert.deepEqual(place("/srv/data"), ["/srv/ = /srv", "/srv/data = /srv/data"]);
  assert.deepEqual(place("/srv//data/./x/../"), ["/srv/ = /srv", "/srv/data = /srv/data"]);
  assert.deepEqual(place("/top"), ["/top = /top"]);
});

test("a relative target is placed as it was given, without what leads out of the folder it starts from", () => {
  assert.deepEqual(place("docs"), ["/docs = /home/me/docs"]);
  assert.deepEqual(place("./docs/new/"), ["/docs/ = /home/me/docs", "/docs/new = /home/me/docs/new"]);
  assert.deepEqual(place("../you"), ["/you = /home/you"]);
  assert.deepEqual(place("docs/../../you/docs"), ["/you/ = /home/you", "/you/docs = /home/you/docs"]);
});

test("a folder that stands for its contents gives these", () => {
  assert.deepEqual(place("."), ["/in me = /home/me/in me"]);
  assert.deepEqual(place(".."), ["/in home = /home/in home"]);
  assert.deepEqual(place("/"), ["/bin = /bin", "/home = /home"]);
  assert.deepEqual(place("docs/.."), ["/in me = /home/me/in me"]);
});

test("a target within another is covered by it, in whatever order they are given", () => {
  assert.deepEqual(place("/srv", "/srv/data/x"), ["/srv = /srv"]);
  assert.deepEqual(place("/srv/data/x", "/srv"), ["/srv = /srv"]);
  assert.deepEqual(place("/srv/data/x", "/srv/data/y", "/srv/data"), ["/srv/ = /srv", "/srv/data = /srv/data"]);
  assert.deepEqual(place("/", "/home/me"), ["/bin = /bin", "/home = /home"]);
  assert.deepEqual(place("/srv", "/srv"), ["/srv = /srv"]);
});

test("targets whose names begin alike are apart", () => {
  assert.deepEqual(place("/srv/data", "/srv/data2"), ["/srv/ = /srv", "/srv/data = /srv/data", "/srv/data2 = /srv/data2"]);
});

test("two places on the disk for one place in the snapshot are refused, and so is what is no path", () => {
  for (const targets of [["docs", "/docs"], ["docs", "../docs"], ["docs/a", "/docs/b"], [], [""], ["a\0b"]]) {
    assert.throws(() => place(...targets), { code: "InvalidArgument" }, JSON.stringify(targets));
  }
});

test("paths are absolute and in the order given", () => {
  assert.deepEqual(placeTargets(["b", "/a", ".", "../c/"], { directory: "/home/me", list }).paths, [
    "/home/me/b",
    "/a",
    "/home/me",
    "/home/c",
  ]);
});

test("whatever targets are given, each is in the snapshot once, at its own place", () => {
  const name = fc.constantFrom("a", "b", "c", "\xff");
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => `/${names.join("/")}`);
  fc.assert(
    fc.property(fc.array(path, { minLength: 1, maxLength: 6 }), (targets) => {
      const placed = flatten(placeTargets(targets, { directory: "/", list }));
      const found = placed.filter((line) => !line.includes("/ = ")).map((line) => line.split(" = ") as [string, string]); // two parts each
      for (const [inSnapshot, onDisk] of found) assert.equal(inSnapshot, onDisk);
      const outermost = targets.filter((target) => !targets.some((other) => target.startsWith(`${other}/`)));
      assert.deepEqual(found.map(([where]) => where).sort(), [...new Set(outermost)].sort());
    }),
    { seed: 3, numRuns: 300 },
  );
});
