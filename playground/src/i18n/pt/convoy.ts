import type { convoy as en } from "../en/convoy";

export const convoy: typeof en = {
  title: "Comboio",
};
