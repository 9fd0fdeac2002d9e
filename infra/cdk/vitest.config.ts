import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/temporary.ts",
    // Reading aws-cdk-lib takes seconds: once is enough, as no test changes what others see.
    isolate: false,
    maxWorkers: 1,
    // A stack takes a fifth of a second, and much longer on a machine that compiles something else.
    testTimeout: 60_000,
  },
});
