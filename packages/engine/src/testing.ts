/** Doubles and conformance suites for the ports of the engine. For tests only. */

export { compareTrees, type CompareTreesOptions } from "./restore/compare-trees.ts";
export { type StoreSubject, testStore } from "./store/conformance.ts";
export {
  type FaultMode,
  type FaultRule,
  type FaultyCall,
  type FaultyOperation,
  type FaultyStore,
  createFaultyStore,
} from "./store/faulty.ts";
export { createMemoryStore } from "./store/memory.ts";
