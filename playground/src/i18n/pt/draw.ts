import type { draw as en } from "../en/draw";

export const draw: typeof en = {
  title: "Desenhar",
};
