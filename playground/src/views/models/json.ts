/** JSON to be read by people. */

const LONGEST_LINE = 60;

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** The same without what says nothing, at any depth: protobuf's JSON has every field, and most are at their defaults.
 * Elements of arrays stay, and so does an object that has nothing but defaults: that `dynamic_batching` is there at all
 * says something. */
export function withoutDefaults(value: Json): Json {
  if (isArray(value)) return value.map(withoutDefaults);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, each]) => !saysNothing(each))
      .map(([key, each]) => [key, withoutDefaults(each)]),
  );
}

/** Whether it is read best in one line: a scalar, a few scalars, an object with one such field. */
export function isPlain(value: Json): boolean {
  if (value === null || typeof value !== "object") return true;
  const values = Object.values(value);
  const depth = isArray(value) ? values.every((each) => each === null || typeof each !== "object") : values.length <= 1;
  return depth && values.every(isPlain) && JSON.stringify(value).length <= LONGEST_LINE;
}

export function isArray(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

function saysNothing(value: Json): boolean {
  if (value === null || typeof value !== "object") return !value;
  return Object.keys(value).length === 0;
}
