import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Puts what the CDK synthesizes, and never takes away, into a folder that goes with the tests. */
export default function setUp(): () => void {
  const folder = mkdtempSync(join(tmpdir(), "tapeline-cdk-"));
  process.env.TMPDIR = folder;
  return () => rmSync(folder, { recursive: true, force: true });
}
