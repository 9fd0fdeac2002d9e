// Takes away what a stage must not ask. Comes before all other modules.
//
// Without WASI the engine answers with what it saw when the component was built. That would look right in a test, and
// would still differ from a second build, or with how the host cuts batches. So whoever asks is told.

for (const name of ["Date", "performance", "crypto", "fetch", "setTimeout", "setInterval", "WeakRef", "FinalizationRegistry"]) {
  delete globalThis[name];
}

Math.random = () => {
  throw new Error("a stage has no randomness");
};
