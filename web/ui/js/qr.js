// @ts-check
// A QR code (ISO/IEC 18004) of a link: bytes, error correction level M, up to 213 bytes. Nothing is fetched to draw it.

/** Of each version from 1 on: correction words a block, then blocks and data words of each of up to two groups. */
const BLOCKS = [
  [10, 1, 16], [16, 1, 28], [26, 1, 44], [18, 2, 32], [24, 2, 43],
  [16, 4, 27], [18, 4, 31], [22, 2, 38, 2, 39], [22, 3, 36, 2, 37], [26, 4, 43, 1, 44],
];
/** Centres of the alignment patterns of each version. */
const ALIGNMENT = [[], [6, 18], [6, 22], [6, 26], [6, 30], [6, 34], [6, 22, 38], [6, 24, 42], [6, 26, 46], [6, 28, 50]];
/** Generator polynomials of the codes that protect format and version, and what the format is masked with. */
const FORMAT_CODE = 0x537;
const VERSION_CODE = 0x1f25;
const FORMAT_MASK = 0x5412;
/** The field of the correction words: x⁸ + x⁴ + x³ + x² + 1. */
const FIELD = 0x11d;

const EXP = new Uint8Array(510);
const LOG = new Uint8Array(256);
for (let i = 0, x = 1; i < 255; i += 1) {
  EXP[i] = EXP[i + 255] = x;
  LOG[x] = i;
  x = (x << 1) ^ (x & 128 ? FIELD : 0);
}

/** @type {((row: number, column: number) => boolean)[]} */
const MASKS = [
  (r, c) => (r + c) % 2 === 0,
  (r) => r % 2 === 0,
  (_, c) => c % 3 === 0,
  (r, c) => (r + c) % 3 === 0,
  (r, c) => (Math.floor(r / 2) + Math.floor(c / 3)) % 2 === 0,
  (r, c) => ((r * c) % 2) + ((r * c) % 3) === 0,
  (r, c) => (((r * c) % 2) + ((r * c) % 3)) % 2 === 0,
  (r, c) => (((r + c) % 2) + ((r * c) % 3)) % 2 === 0,
];

/** Correction words of a block (Reed and Solomon). @param {number[]} data @param {number} count */
function correction(data, count) {
  let generator = [1];
  for (let i = 0; i < count; i += 1) {
    const next = [...generator, 0];
    generator.forEach((g, k) => (next[k + 1] ^= g ? EXP[LOG[g] + i] : 0));
    generator = next;
  }
  const rest = [...data, ...new Array(count).fill(0)];
  data.forEach((_, i) => {
    const lead = rest[i];
    if (lead) generator.forEach((g, k) => (rest[i + k] ^= g ? EXP[LOG[g] + LOG[lead]] : 0));
  });
  return rest.slice(data.length);
}

/** Appends the remainder that a BCH code checks. @param {number} value @param {number} code */
function checked(value, code) {
  const bits = 31 - Math.clz32(code);
  let rest = value << bits;
  while (rest >= 1 << bits) rest ^= code << (31 - Math.clz32(rest) - bits);
  return (value << bits) | rest;
}

/** All words in the order that they are drawn in, and the version. @param {Uint8Array} bytes */
function words(bytes) {
  for (const [index, [count, ...groups]] of BLOCKS.entries()) {
    const version = index + 1;
    const sizes = [];
    for (let g = 0; g < groups.length; g += 2) sizes.push(...new Array(groups[g]).fill(groups[g + 1]));
    const room = sizes.reduce((a, b) => a + b);
    const lengthBits = version < 10 ? 8 : 16;
    if (4 + lengthBits + 8 * bytes.length > 8 * room) continue;
    let bits = `0100${bytes.length.toString(2).padStart(lengthBits, '0')}`;
    for (const byte of bytes) bits += byte.toString(2).padStart(8, '0');
    bits += '0'.repeat(Math.min(4, 8 * room - bits.length));
    bits += '0'.repeat((8 - (bits.length % 8)) % 8);
    const data = (bits.match(/.{8}/g) ?? []).map((word) => parseInt(word, 2));
    for (let pad = 0; data.length < room; pad += 1) data.push(pad % 2 ? 0x11 : 0xec);
    let from = 0;
    const blocks = sizes.map((size) => data.slice(from, (from += size)));
    const checks = blocks.map((block) => correction(block, count));
    const woven = (/** @type {number[][]} */ of) =>
      Array.from({ length: Math.max(...of.map((one) => one.length)) }, (_, i) => of.flatMap((one) => one.slice(i, i + 1))).flat();
    return { version, all: [...woven(blocks), ...woven(checks)] };
  }
  return null;
}

/** How badly a pattern reads, as the standard counts it. @param {boolean[][]} dark */
function penalty(dark) {
  const size = dark.length;
  let points = 0;
  const lines = [...dark, ...dark.map((_, c) => dark.map((row) => row[c]))];
  for (const line of lines) {
    let text = '';
    for (const is of line) text += is ? '1' : '0';
    for (const run of text.match(/0{5,}|1{5,}/g) ?? []) points += run.length - 2;
    for (let i = 0; i + 11 <= size; i += 1) {
      const part = text.slice(i, i + 11);
      if (part === '10111010000' || part === '00001011101') points += 40;
    }
  }
  let count = 0;
  for (let r = 0; r < size; r += 1) {
    for (let c = 0; c < size; c += 1) {
      if (dark[r][c]) count += 1;
      const square = r + 1 < size && c + 1 < size;
      if (square && dark[r][c] === dark[r + 1][c] && dark[r][c] === dark[r][c + 1] && dark[r][c] === dark[r + 1][c + 1]) points += 3;
    }
  }
  return points + 10 * Math.floor(Math.abs((count * 20) / (size * size) - 10));
}

/**
 * The code as rows of modules, true where dark, without the quiet zone of four; null for a text that is too long.
 * @param {string} text
 * @returns {boolean[][] | null}
 */
export function encode(text) {
  const coded = words(new TextEncoder().encode(text));
  if (!coded) return null;
  const { version, all } = coded;
  const size = 17 + 4 * version;
  const fixed = Array.from({ length: size }, () => /** @type {(boolean | undefined)[]} */ (new Array(size).fill(undefined)));
  const square = (/** @type {number} */ row, /** @type {number} */ column, /** @type {number} */ reach, /** @type {number[]} */ light) => {
    for (let r = -reach; r <= reach; r += 1) {
      for (let c = -reach; c <= reach; c += 1) {
        if (fixed[row + r]?.[column + c] === undefined && row + r >= 0 && row + r < size && column + c >= 0 && column + c < size) {
          fixed[row + r][column + c] = !light.includes(Math.max(Math.abs(r), Math.abs(c)));
        }
      }
    }
  };
  for (const [row, column] of [[3, 3], [3, size - 4], [size - 4, 3]]) square(row, column, 4, [2, 4]);
  for (const row of ALIGNMENT[version - 1]) {
    for (const column of ALIGNMENT[version - 1]) if (fixed[row][column] === undefined) square(row, column, 2, [1]);
  }
  for (let i = 8; i < size - 8; i += 1) {
    fixed[6][i] ??= i % 2 === 0;
    fixed[i][6] ??= i % 2 === 0;
  }
  if (version >= 7) {
    const bits = checked(version, VERSION_CODE);
    for (let i = 0; i < 18; i += 1) {
      const place = [Math.floor(i / 3), size - 11 + (i % 3)];
      fixed[place[0]][place[1]] = fixed[place[1]][place[0]] = ((bits >> i) & 1) === 1;
    }
  }
  /** Draws the format, with level M (00) and this mask. @param {(boolean | undefined)[][]} on @param {number} mask */
  const format = (on, mask) => {
    const bits = checked(mask, FORMAT_CODE) ^ FORMAT_MASK;
    for (let i = 0; i < 15; i += 1) {
      const is = ((bits >> i) & 1) === 1;
      on[i < 6 ? i : i < 8 ? i + 1 : size - 15 + i][8] = is;
      on[8][i < 8 ? size - 1 - i : i < 9 ? 7 : 14 - i] = is;
    }
    on[size - 8][8] = true;
  };
  format(fixed, 0);
  const drawn = MASKS.map((masked, mask) => {
    const dark = fixed.map((row) => row.map(Boolean));
    let bit = 0;
    for (let right = size - 1, up = true; right > 0; right -= 2, up = !up) {
      if (right === 6) right = 5;
      for (let i = 0; i < size; i += 1) {
        const row = up ? size - 1 - i : i;
        for (const column of [right, right - 1]) {
          if (fixed[row][column] !== undefined) continue;
          const word = all[bit >> 3] ?? 0;
          dark[row][column] = (((word >> (7 - (bit & 7))) & 1) === 1) !== masked(row, column);
          bit += 1;
        }
      }
    }
    format(dark, mask);
    return { dark, points: penalty(dark) };
  });
  return drawn.reduce((best, one) => (one.points < best.points ? one : best)).dark;
}

/**
 * The code as a picture with its quiet zone.
 * @param {string} text
 * @returns {SVGElement | null}
 */
export function picture(text) {
  const dark = encode(text);
  if (!dark) return null;
  const side = dark.length + 8;
  const path = dark.flatMap((row, r) => row.map((is, c) => (is ? `M${c + 4} ${r + 4}h1v1h-1z` : ''))).join('');
  const name = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(name, 'svg');
  svg.setAttribute('viewBox', `0 0 ${side} ${side}`);
  svg.setAttribute('shape-rendering', 'crispEdges');
  const shape = svg.appendChild(document.createElementNS(name, 'path'));
  shape.setAttribute('d', path);
  return svg;
}
