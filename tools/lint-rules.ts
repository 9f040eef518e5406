/** The house's own lint rules, loaded by oxlint: what no ready-made rule says. */

interface Node {
  readonly type: string;
  readonly [key: string]: unknown;
}

interface Comment extends Node {
  readonly value: string;
}

interface Context {
  readonly sourceCode: { getAllComments(): readonly Comment[] };
  report(problem: { node: unknown; message: string }): void;
}

interface Rule {
  create(context: Context): Record<string, (node: Node) => void>;
}

const useClock = "Time comes from a Clock (@granary/base/clock), so that tests own it.";

function isNamed(node: unknown, name: string): boolean {
  return typeof node === "object" && node !== null && "name" in node && node.name === name;
}

/** `Date.now()`, `new Date()` and `Date()` read the machine's time; `new Date(x)` and `Date.UTC()` only convert. */
const noWallTime: Rule = {
  create: (context) => ({
    NewExpression(node) {
      if (isNamed(node.callee, "Date") && Array.isArray(node.arguments) && node.arguments.length === 0)
        context.report({ node, message: useClock });
    },
    CallExpression(node) {
      if (isNamed(node.callee, "Date")) context.report({ node, message: useClock });
    },
    MemberExpression(node) {
      if (isNamed(node.object, "Date") && isNamed(node.property, "now")) context.report({ node, message: useClock });
    },
  }),
};

/** A comment that switches a check off must say why after two dashes: `oxlint-disable-next-line rule -- because …`. */
const explainDisable: Rule = {
  create: (context) => ({
    Program() {
      for (const comment of context.sourceCode.getAllComments()) {
        const isDisabling = /^\s*(?:oxlint|eslint)-disable/.test(comment.value);
        if (isDisabling && !/\s--\s+\S.{9}/.test(comment.value)) {
          context.report({ node: comment, message: "Say why: `oxlint-disable-next-line rule -- the reason`." });
        }
        if (/^\s*(?:@ts-(?:ignore|nocheck|expect-error)|biome-ignore (?!format: \S.{9}))/.test(comment.value)) {
          context.report({ node: comment, message: "Change the code instead; only `biome-ignore format: the reason` is for tables." });
        }
      }
    },
  }),
};

const plugin: { meta: { name: string }; rules: Record<string, Rule> } = {
  meta: { name: "house" },
  rules: { "no-wall-time": noWallTime, "explain-disable": explainDisable },
};
export default plugin;
