/** A confusion matrix: how often a class (row) was taken for a class (column). */

export type Matrix = readonly (readonly number[])[];

export interface Mistake {
  readonly truth: number;
  readonly answer: number;
  readonly times: number;
}

/** Whether a card's matrix has a row and a column for each of so many classes. */
export function isSquare(matrix: Matrix, classes: number): boolean {
  return matrix.length === classes && matrix.every((row) => row.length === classes);
}

/** How much of each row's examples is in each cell, 0 to 1. */
export function shares(matrix: Matrix): Matrix {
  return matrix.map((row) => {
    const all = row.reduce((sum, count) => sum + count, 0);
    return row.map((count) => (all ? count / all : 0));
  });
}

/** Kinds of mistakes, the most frequent first. */
export function mistakesOf(matrix: Matrix): readonly Mistake[] {
  return matrix
    .flatMap((row, truth) => row.map((times, answer) => ({ truth, answer, times })))
    .filter(({ truth, answer, times }) => truth !== answer && times > 0)
    .sort((one, other) => other.times - one.times);
}

/** How dark a cell is, 0 to 1: small shares can be told from none. */
export function heat(share: number): number {
  return share > 0 ? 0.18 + 0.82 * Math.sqrt(share) : 0;
}
