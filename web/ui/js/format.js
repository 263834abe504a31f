// @ts-check
// Numbers, units, ages and times in words. Nothing here touches the page.

/** SenML unit symbols (RFC 8428) as people write them. */
const UNITS = new Map([
  ['Cel', '°C'],
  ['%RH', '%'],
  ['%EL', '%'],
  ['m/s2', 'm/s²'],
  ['uT', 'µT'],
  ['beat/min', 'bpm'],
  ['1/min', '/min'],
  ['deg', '°'],
  ['1', ''],
]);

/** @param {string} symbol */
export function unitText(symbol) {
  return UNITS.get(symbol) ?? symbol;
}

/**
 * Most decimals worth showing for a value of this size; a live value has about seven digits.
 * @param {number} size
 */
function decimalsFor(size) {
  if (size >= 1000) return 1;
  if (size >= 10) return 2;
  return 3;
}

/** The fewest decimals that show every value seen so far, so that digits do not come and go. */
export class Decimals {
  constructor() {
    this.needed = 0;
  }

  /**
   * @param {number} value
   * @returns {string}
   */
  text(value) {
    if (!Number.isFinite(value)) return '–';
    const size = Math.abs(value);
    const most = decimalsFor(size);
    // The error of a 32-bit float is below one part in ten million.
    while (this.needed < most && Math.abs(value - Number(value.toFixed(this.needed))) > size * 2e-7) {
      this.needed += 1;
    }
    return minus(value.toFixed(Math.min(this.needed, most)));
  }
}

/**
 * A number where no history of it is kept, as on an axis or in a summary.
 * @param {number} value
 * @param {number} [decimals]
 */
export function number(value, decimals) {
  if (!Number.isFinite(value)) return '–';
  const text = value.toFixed(decimals ?? decimalsFor(Math.abs(value)));
  return minus(decimals === undefined && text.includes('.') ? text.replace(/\.?0+$/, '') : text);
}

/**
 * A number of bytes in a unit that leaves few digits.
 * @param {number} count
 */
export function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size.toFixed(unit === 0 || size >= 100 ? 0 : 1)} ${units[unit]}`;
}

/**
 * A count or rate: whole, thousands apart.
 * @param {number} value
 */
export function whole(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** @param {string} text a true minus sign is as wide as a digit */
function minus(text) {
  return text.startsWith('-') ? (Number(text) === 0 ? text.slice(1) : `−${text.slice(1)}`) : text;
}

/**
 * How long ago, in words that change at a calm pace.
 * @param {number} ms
 */
export function age(ms) {
  if (!Number.isFinite(ms)) return 'never';
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 1.5) return 'now';
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  const minutes = seconds / 60;
  if (minutes < 60) return `${Math.round(minutes)} min ago`;
  const hours = minutes / 60;
  if (hours < 48) return `${Math.round(hours)} h ago`;
  return `${Math.round(hours / 24)} days ago`;
}

/**
 * A duration such as a window or a clock error.
 * @param {number} ms
 */
export function duration(ms) {
  const seconds = Math.abs(ms) / 1000;
  if (seconds < 60) return `${number(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/**
 * Time of day, with as many digits as the step between two labels needs.
 * @param {number} ts ms since 1970
 * @param {number} stepMs
 */
export function timeOfDay(ts, stepMs = 1000) {
  const date = new Date(ts);
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const minutes = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (stepMs >= 60_000) return minutes;
  const seconds = `${minutes}:${two(date.getSeconds())}`;
  if (stepMs >= 1000) return seconds;
  return `${seconds}.${Math.floor(date.getMilliseconds() / 100)}`;
}

/**
 * Date and time of day where the day is not today.
 * @param {number} ts ms since 1970
 * @param {number} now
 */
export function moment(ts, now) {
  const sameDay = new Date(ts).toDateString() === new Date(now).toDateString();
  return sameDay ? timeOfDay(ts) : `${new Date(ts).toLocaleDateString()} ${timeOfDay(ts)}`;
}
