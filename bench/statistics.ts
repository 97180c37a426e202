const ascending = (numbers: readonly number[]): number[] => numbers.toSorted((a, b) => a - b);

/** The value that a share of the numbers does not exceed (0.5 is the median); NaN of none. */
export function quantile(numbers: readonly number[], share: number): number {
  const sorted = ascending(numbers);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] ?? Number.NaN;
}

export const median = (numbers: readonly number[]): number => quantile(numbers, 0.5);

export const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
