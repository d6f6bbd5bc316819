export { shell } from "./shell";
export { draw } from "./draw";
export { layers } from "./layers";
export { convolution } from "./convolution";
export { convoy } from "./convoy";
export { models } from "./models";
