// @ts-check
// How a chart is moved: dragged with mouse or finger, wheeled sideways, or by keys while it has the focus.

import { Strip } from './strip.js';

/** Share of the window that an arrow key moves; with shift, five times that. */
const KEY_PAN = 0.1;
const FAST = 5;
/** A press that moves less than this many CSS pixels is no drag. */
const DRAG_PX = 3;

/**
 * Lets people move what a chart shows.
 * @param {HTMLElement} host
 * @param {Strip} strip
 * @param {{ signal: AbortSignal, oldest: () => void }} options `signal` ends it; `oldest` shows the oldest sample
 */
export function handle(host, strip, { signal, oldest }) {
  const { view } = strip;
  const perPixel = () => view.windowMs / strip.plotWidth;
  const onButton = (/** @type {Event} */ event) => event.target instanceof Element && event.target.closest('button');
  let from = NaN;
  let right = 0;

  const press = (/** @type {PointerEvent} */ event) => {
    if (event.button !== 0 || onButton(event)) return;
    from = event.clientX;
    right = view.right;
    host.setPointerCapture(event.pointerId);
  };
  const move = (/** @type {PointerEvent} */ event) => {
    if (Number.isNaN(from) || Math.abs(event.clientX - from) < DRAG_PX) return;
    view.show(right - (event.clientX - from) * perPixel());
  };
  const release = () => {
    from = NaN;
  };
  const wheel = (/** @type {WheelEvent} */ event) => {
    if (Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    view.pan(event.deltaX * perPixel());
  };
  const key = (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || onButton(event)) return;
    const step = view.windowMs * KEY_PAN * (event.shiftKey ? FAST : 1);
    /** @type {Record<string, () => void>} */
    const keys = {
      ' ': () => view.toggle(),
      ArrowLeft: () => view.pan(-step),
      ArrowRight: () => view.pan(step),
      '+': () => view.zoom(-1),
      '=': () => view.zoom(-1),
      '-': () => view.zoom(1),
      Home: oldest,
      End: () => view.live(),
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };

  host.addEventListener('pointerdown', press, { signal });
  host.addEventListener('pointermove', move, { signal });
  host.addEventListener('pointerup', release, { signal });
  host.addEventListener('pointercancel', release, { signal });
  host.addEventListener('wheel', wheel, { signal, passive: false });
  host.addEventListener('keydown', key, { signal });
}
