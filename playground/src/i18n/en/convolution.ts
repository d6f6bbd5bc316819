export const convolution = {
  title: "Convolution",
};
