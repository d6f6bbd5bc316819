import type { layers as en } from "../en/layers";

export const layers: typeof en = {
  title: "Camadas",
};
