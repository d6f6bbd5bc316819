/** A convolution layer, one window after the other. Pure. */

/** Numbers by row and column. */
export type Plane = readonly (readonly number[])[];
/** A plane for each channel. */
export type Volume = readonly Plane[];

export interface Layer {
  /** Each as deep as the input. */
  readonly filters: readonly Volume[];
  readonly biases: readonly number[];
  readonly stride: number;
  readonly padding: number;
}

/** One window under one filter, and the output that comes of it. */
export interface Step {
  readonly filter: number;
  /** Of the output. */
  readonly row: number;
  readonly column: number;
  /** Of the window's corner, in the padded input. */
  readonly top: number;
  readonly left: number;
  /** Input times filter, for each channel. */
  readonly products: Volume;
  /** Of each channel's products. */
  readonly sums: readonly number[];
  readonly bias: number;
  readonly output: number;
}

/** W₂ = (W₁ − F + 2P)/S + 1; a rest is cut off. */
export function sizeOf(size: number, kernel: number, padding: number, stride: number): number {
  return Math.floor((size - kernel + 2 * padding) / stride) + 1;
}

/** Zeros all around each plane. */
export function padded(volume: Volume, padding: number): Volume {
  return volume.map((plane) => {
    const width = (plane[0]?.length ?? 0) + 2 * padding;
    const margin = Array.from({ length: padding }, () => zeros(width));
    return [...margin, ...plane.map((row) => [...zeros(padding), ...row, ...zeros(padding)]), ...margin];
  });
}

/** All of them: filter by filter, row by row. */
export function stepsOf(volume: Volume, { filters, biases, stride, padding }: Layer): readonly Step[] {
  const input = padded(volume, padding);
  const [height, width] = [volume[0]?.length ?? 0, volume[0]?.[0]?.length ?? 0];
  return filters.flatMap((filter, index) => {
    const kernel = filter[0]?.length ?? 0;
    return range(sizeOf(height, kernel, padding, stride)).flatMap((row) =>
      range(sizeOf(width, kernel, padding, stride)).map((column) => {
        const [top, left] = [row * stride, column * stride];
        const products = filter.map((plane, channel) =>
          plane.map((weights, y) =>
            weights.map((weight, x) => times(weight, input[channel]?.[top + y]?.[left + x] ?? 0)),
          ),
        );
        const sums = products.map((plane) => sum(plane.flat()));
        const bias = biases[index] ?? 0;
        return { filter: index, row, column, top, left, products, sums, bias, output: sum(sums) + bias };
      }),
    );
  });
}

/** The outputs of steps, in their order: what the layer makes of the whole input. */
export function outputsOf(steps: readonly Step[]): readonly number[] {
  return steps.map(({ output }) => output);
}

function times(a: number, b: number): number {
  return a * b || 0; // no −0
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function zeros(count: number): number[] {
  return new Array<number>(count).fill(0);
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
