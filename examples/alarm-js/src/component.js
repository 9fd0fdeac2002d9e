// What the component is made of: `process` is the interface that the world `stage` exports.

import "./pure.js";

export { process } from "./stage.js";
