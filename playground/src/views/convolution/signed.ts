/** Whole numbers as mathematics writes them: with a minus, not a hyphen. */
export function signed(value: number): string {
  return value < 0 ? `−${-value}` : String(value);
}
