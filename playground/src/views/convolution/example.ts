/** The lecture's worked example of a convolution layer: W₁ = H₁ = 5, D₁ = 3; K = 2, F = 3, S = 2, P = 1. */

import type { Layer, Volume } from "./steps";

export const VOLUME: Volume = [
  [
    [0, 0, 1, 0, 2],
    [1, 0, 2, 0, 1],
    [1, 0, 2, 2, 0],
    [2, 0, 0, 2, 0],
    [2, 1, 2, 2, 0],
  ],
  [
    [2, 1, 2, 1, 1],
    [2, 1, 2, 0, 1],
    [0, 2, 1, 0, 1],
    [1, 2, 2, 2, 2],
    [0, 1, 2, 0, 1],
  ],
  [
    [2, 1, 1, 2, 0],
    [1, 0, 0, 1, 0],
    [0, 1, 0, 0, 0],
    [1, 0, 2, 1, 0],
    [2, 2, 1, 1, 1],
  ],
];

export const LAYER: Layer = {
  filters: [
    [
      [[-1, 0, 1], [0, 0, 1], [1, -1, 1]],
      [[-1, 0, 1], [1, -1, 1], [0, 1, 0]],
      [[-1, 1, 1], [1, 1, 0], [0, -1, 0]],
    ],
    [
      [[0, 1, -1], [0, -1, 0], [0, -1, 1]],
      [[-1, 0, 0], [1, -1, 0], [1, -1, 0]],
      [[-1, 1, -1], [0, -1, -1], [1, 0, 0]],
    ],
  ],
  biases: [1, 0],
  stride: 2,
  padding: 1,
};

/** The served model of this very layer. */
export const MODEL = "lecture_conv";
