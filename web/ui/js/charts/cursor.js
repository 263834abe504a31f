// @ts-check
// One cursor over all charts of a page: whichever chart is pointed at, all show their values of that moment. It stands a
// time behind the right edge of the view, so that it rests under the pointer while the charts go on.

/** Share of the window that a key moves it; with shift, ten times that. */
const KEY_STEP = 0.01;
const FAST = 10;

/**
 * @typedef {object} Pointed a chart that a cursor can stand on
 * @property {(ago: number) => number} xOf CSS pixels from the left of its host, NaN where it does not show that moment
 * @property {(px: number) => number} agoAt ms behind the right edge, NaN beside the plot
 */

export class Cursor extends EventTarget {
  /** @param {import('./view.js').View} view */
  constructor(view) {
    super();
    this.view = view;
    /** ms behind the view's right edge; NaN when there is no cursor. */
    this.ago = NaN;
  }

  get shown() {
    return !Number.isNaN(this.ago);
  }

  /** @param {number} ago */
  put(ago) {
    if (Object.is(ago, this.ago)) return;
    this.ago = ago;
    this.dispatchEvent(new Event('change'));
  }

  /**
   * Lets a chart move it, by pointer and by keys, and shows it there as a line.
   * @param {HTMLElement} host
   * @param {() => Pointed} chart
   * @param {AbortSignal} signal ends it
   */
  over(host, chart, signal) {
    const line = document.createElement('i');
    line.className = 'cursor';
    line.hidden = true;
    host.append(line);
    const place = () => {
      const x = this.shown ? chart().xOf(this.ago) : NaN;
      line.hidden = Number.isNaN(x);
      if (!line.hidden) line.style.transform = `translateX(${x}px)`;
    };
    let at = NaN;
    const move = (/** @type {PointerEvent} */ event) => {
      if (event.pointerType === 'touch' && event.buttons === 0) return;
      at = event.clientX - host.getBoundingClientRect().left;
      this.put(chart().agoAt(at));
    };
    const leave = () => {
      at = NaN;
      this.put(NaN);
    };
    const key = (/** @type {KeyboardEvent} */ event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { windowMs } = this.view;
      const step = windowMs * KEY_STEP * (event.shiftKey ? FAST : 1);
      const from = this.shown ? this.ago : windowMs / 2;
      if (event.key === ',' || event.key === '<') this.put(Math.min(windowMs, from + step));
      else if (event.key === '.' || event.key === '>') this.put(Math.max(0, from - step));
      else if (event.key === 'Escape' && this.shown) this.put(NaN);
      else return;
      event.preventDefault();
    };
    this.addEventListener('change', place, { signal });
    this.view.addEventListener('change', place, { signal });
    host.addEventListener('pointermove', move, { signal });
    host.addEventListener('pointerleave', leave, { signal });
    host.addEventListener('keydown', key, { signal });
    signal.addEventListener('abort', () => line.remove());
    return {
      /** Where a chart's plot moves on under the pointer, the moment pointed at is another one. */
      again: () => {
        if (!Number.isNaN(at)) this.put(chart().agoAt(at));
        else place();
      },
    };
  }
}

/**
 * The value of a channel nearest to a moment, of the first series that has one there; NaN within a gap.
 * @param {import('../series.js').Series[]} layers
 * @param {number} channel
 * @param {number} ts
 */
export function valueAt(layers, channel, ts) {
  for (const series of layers) {
    const values = series.columns[channel];
    if (!values || series.length === 0) continue;
    const after = series.indexOf(ts);
    const near = [after - 1, after].filter((i) => i >= 0 && i < series.length && !Number.isNaN(values[i]));
    near.sort((a, b) => Math.abs(series.times[a] - ts) - Math.abs(series.times[b] - ts));
    if (near.length > 0 && Math.abs(series.times[near[0]] - ts) <= series.gap) return values[near[0]];
  }
  return NaN;
}
