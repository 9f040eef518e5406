import { testStore } from "./conformance.ts";
import { createMemoryStore } from "./memory.ts";

testStore("the memory store", { open: async () => createMemoryStore(), close: (store) => store.close() });
