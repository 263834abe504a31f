// @ts-check
// The binary frames of the live socket; the layout stands in web/src/live/frame.rs. One frame holds samples of one
// series, which a JSON message of type "series" has named before, by a number of this connection.

/** The layout that this decoder reads. */
export const VERSION = 1;
/** Bytes before the times. */
const HEADER = 24;
/** Most channels of a value. */
const MAX_CHANNELS = 16;

/** Whether typed arrays can be laid over little-endian data as it is: true on all but historic machines. */
const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * @typedef {object} Frame
 * @property {number} ref
 * @property {number} channels
 * @property {Float64Array} times ms since 1970
 * @property {Float32Array} flat sample after sample; NaN where a channel is missing
 */

/**
 * Reads one frame. Throws an error that says what is wrong with it.
 * @param {ArrayBuffer} buffer
 * @returns {Frame}
 */
export function decode(buffer) {
  if (buffer.byteLength < HEADER) throw new Error(`a frame of ${buffer.byteLength} bytes has no header`);
  const head = new DataView(buffer);
  const version = head.getUint8(0);
  if (version !== VERSION) throw new Error(`frame layout ${version} is not known; reload the page`);
  const channels = head.getUint8(1);
  const count = head.getUint32(16, true);
  if (channels < 1 || channels > MAX_CHANNELS) throw new Error(`a frame cannot have ${channels} channels`);
  const length = HEADER + 4 * count * (1 + channels);
  if (buffer.byteLength !== length) throw new Error(`a frame of ${length} bytes came with ${buffer.byteLength}`);
  const ref = head.getUint32(4, true);
  const base = head.getFloat64(8, true);
  const times = new Float64Array(count);
  if (LITTLE_ENDIAN) {
    const after = new Uint32Array(buffer, HEADER, count);
    for (let i = 0; i < count; i += 1) times[i] = (base + after[i]) / 1000;
    return { ref, channels, times, flat: new Float32Array(buffer, HEADER + 4 * count, count * channels) };
  }
  const flat = new Float32Array(count * channels);
  for (let i = 0; i < count; i += 1) times[i] = (base + head.getUint32(HEADER + 4 * i, true)) / 1000;
  for (let i = 0; i < flat.length; i += 1) flat[i] = head.getFloat32(HEADER + 4 * count + 4 * i, true);
  return { ref, channels, times, flat };
}
