/** A picture as the tensor that a model takes. Pure. */

import type { InputTensor } from "../../api/inference";
import type { Classifier } from "./classifiers";

/** Pixels from 0 to 255, row by row, the channels of a pixel beside each other. */
export interface Picture {
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
  readonly pixels: Uint8ClampedArray;
}

/**
 * Pixels where the server makes the model's numbers of them; else those numbers. A model of one channel that does not
 * say how it was trained is taken to know light ink on dark paper, from 0 to 1, as MNIST has it.
 */
export function tensorOf(picture: Picture, classifier: Classifier): InputTensor {
  const { height, width, channels, pixels } = picture;
  const { input: name, datatype, channelsLast, batched, takesPixels } = classifier;
  if (takesPixels) {
    return { name, datatype: "UINT8", shape: [1, height, width, channels], data: new Uint8Array(pixels) };
  }
  const inverted = channels === 1 ? pixels.map((value) => 255 - value) : pixels;
  const ordered = channelsLast ? inverted : planes(inverted, channels);
  const dims = channelsLast ? [height, width, channels] : [channels, height, width];
  const data = datatype === "UINT8" ? new Uint8Array(ordered) : Float32Array.from(ordered, (value) => value / 255);
  return { name, datatype, shape: batched ? [1, ...dims] : dims, data };
}

/** One channel after the other. */
function planes(pixels: Uint8ClampedArray, channels: number): Uint8ClampedArray {
  const size = pixels.length / channels;
  return pixels.map((_, at) => pixels[(at % size) * channels + Math.floor(at / size)] ?? 0);
}
