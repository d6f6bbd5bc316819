/** Real handwritten digits, 0 to 9, held out from training: of scikit-learn's `load_digits` (UCI, CC BY 4.0). Pure. */

import type { Grey } from "./grey";

const SIDE = 8;
const DEEPEST = 16;

/** Counts of dark pixels from 0 to 16 for each field of 8 rows of 8, as digits of base 17. */
const COUNTS = [
  "0007d910007f8f5001f20a8004c00c7005900e3004e00b0001g88b00002be500",
  "0001b9000007gd00004eg9000agbg8000003g6000003g8000005ga000002e600",
  "02dg70000cded0000208c000000b9000000d5000008f200000ggg92001gedg90",
  "02aeb10007f8g4000116f100000f9000001gf91000016f8002846f7002dgf900",
  "0001f500000cg000007gg30005g8g8300bgcggc00bgfg7200142g0000002e000",
  "00agge0004gea8000dg810000cggd2000389g5000003g600005cf20000cf5000",
  "002ee000007g700000dc000001g8420004gggf3002gc46g200d836g6002degc1",
  "004fgc000069ca000000a9000024fa4002fggf70008d9000001g4000006d0000",
  "004fg60000dbbf0000fdfg70007ggb20005fg20000g9cb0002g68g00007ed800",
  "017ea0000ac597000a606f0005bbef1000271a500000095000530d50004eec20",
];

/** As pictures of dark ink on white paper. */
export const SAMPLES: readonly Grey[] = COUNTS.map((counts) => ({
  width: SIDE,
  height: SIDE,
  data: Uint8ClampedArray.from(counts, (count) => 255 * (1 - parseInt(count, DEEPEST + 1) / DEEPEST)),
}));
