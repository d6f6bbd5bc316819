import type { convolution as en } from "../en/convolution";

export const convolution: typeof en = {
  title: "Convolução",
};
