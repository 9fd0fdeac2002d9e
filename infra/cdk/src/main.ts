import { createApp } from "./app.ts";
import { Wrong } from "./wrong.ts";

try {
  createApp().app.synth();
} catch (error) {
  if (!(error instanceof Wrong)) {
    throw error;
  }
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
