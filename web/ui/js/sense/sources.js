// @ts-check
// What a browser can measure, each with why it may not here, and how it is begun and ended. Browsers ask their user before
// motion, position and microphone; nothing is measured before it was chosen.

import * as clock from '../clock.js';

const RADIANS = Math.PI / 180;
/** Faster than this, in ms, is thinned. */
const POINTER_MS = 33;
const MOTION_MS = 16;
const ORIENTATION_MS = 33;
const SOUND_MS = 100;
const BATTERY_MS = 30_000;
/** Silence as a microphone tells it, in dB below the loudest. */
const SILENCE_DB = -100;

/**
 * @typedef {(value: number | string | (number | null)[], at?: number) => void} Emit `at` on the node's clock; now when left out
 *
 * @typedef {object} Source
 * @property {string} attribute
 * @property {string} title
 * @property {string} about what is sent, and how often
 * @property {object} described as `hello` says it
 * @property {() => string} missing why it cannot be measured here; empty when it can
 * @property {(emit: Emit) => Promise<() => void>} start the answer ends it
 * @property {(value: any) => string} words
 */

/** Motion, position and microphone are for pages that came over HTTPS, or from this machine. */
function insecure() {
  return isSecureContext ? '' : 'Browsers give this to secure pages only: open this page over HTTPS, or on the node’s own machine.';
}

/** The moment of an event on the node's clock. @param {{ timeStamp: number }} event */
function moment({ timeStamp }) {
  return clock.now() - Math.max(0, performance.now() - timeStamp);
}

/**
 * Lets through at most one call in so many ms.
 * @param {number} ms
 */
function pace(ms) {
  let last = -Infinity;
  return (/** @type {number} */ at) => {
    if (at - last < ms * 0.9) return false;
    last = at;
    return true;
  };
}

/** iOS asks before motion. @param {any} type */
async function allowed(type) {
  if (typeof type?.requestPermission === 'function' && (await type.requestPermission()) !== 'granted') {
    throw new Error('motion was not allowed');
  }
}

/** @param {number | null | undefined} value @param {number} [factor] */
function scaled(value, factor = 1) {
  return typeof value === 'number' && Number.isFinite(value) ? value * factor : null;
}

const figure = (/** @type {number | null} */ value, digits = 2) => (value === null ? '–' : value.toFixed(digits));

/**
 * @param {HTMLElement} pad where the pointer leaves its trace
 * @param {HTMLElement} button
 * @returns {Source[]}
 */
export function sources(pad, button) {
  return [
    {
      attribute: 'pointer',
      title: 'Pointer',
      about: 'Where mouse or finger is on the pad below, up to 30 times a second',
      described: { kind: 'number', rate_hz: 30, channels: ['x', 'y', 'pressed'] },
      missing: () => '',
      async start(emit) {
        const due = pace(POINTER_MS);
        const move = (/** @type {PointerEvent} */ event) => {
          const box = pad.getBoundingClientRect();
          const share = (/** @type {number} */ at) => Math.round(Math.min(1, Math.max(0, at)) * 1e4) / 1e4;
          const at = moment(event);
          const x = share((event.clientX - box.left) / box.width);
          const y = share((event.clientY - box.top) / box.height);
          if (event.type !== 'pointermove' || due(at)) emit([x, y, event.buttons > 0 ? 1 : 0], at);
        };
        const kinds = /** @type {const} */ (['pointermove', 'pointerdown', 'pointerup']);
        for (const kind of kinds) pad.addEventListener(kind, move);
        return () => kinds.forEach((kind) => pad.removeEventListener(kind, move));
      },
      words: ([x, y]) => `${figure(x * 100, 0)} % across, ${figure(y * 100, 0)} % down`,
    },
    {
      attribute: 'button',
      title: 'Button',
      about: 'When the button below is pressed and released',
      described: { kind: 'button' },
      missing: () => '',
      async start(emit) {
        let down = false;
        const turn = (/** @type {boolean} */ now, /** @type {Event} */ event) => {
          if (now === down) return;
          down = now;
          emit(now ? 'pressed' : 'released', moment(event));
        };
        const end = new AbortController();
        const { signal } = end;
        const isPress = (/** @type {KeyboardEvent} */ { key }) => key === ' ' || key === 'Enter';
        button.addEventListener('pointerdown', (event) => turn(true, event), { signal });
        addEventListener('pointerup', (event) => turn(false, event), { signal });
        button.addEventListener('keydown', (event) => isPress(event) && turn(true, event), { signal });
        button.addEventListener('keyup', (event) => isPress(event) && turn(false, event), { signal });
        button.addEventListener('blur', (event) => turn(false, event), { signal });
        return () => end.abort();
      },
      words: (value) => value,
    },
    {
      attribute: 'motion',
      title: 'Motion',
      about: 'Acceleration with gravity, and turning, up to 60 times a second',
      described: { kind: 'imu', rate_hz: 60 },
      missing: () => insecure() || ('DeviceMotionEvent' in window ? '' : 'This browser tells no motion.'),
      async start(emit) {
        await allowed(DeviceMotionEvent);
        const due = pace(MOTION_MS);
        const move = (/** @type {DeviceMotionEvent} */ event) => {
          const a = event.accelerationIncludingGravity;
          const turn = event.rotationRate;
          const value = [scaled(a?.x), scaled(a?.y), scaled(a?.z), scaled(turn?.beta, RADIANS), scaled(turn?.gamma, RADIANS), scaled(turn?.alpha, RADIANS)];
          const at = moment(event);
          if (value.some((one) => one !== null) && due(at)) emit(value, at);
        };
        addEventListener('devicemotion', move);
        return () => removeEventListener('devicemotion', move);
      },
      words: ([x, y, z]) => `${figure(x)}, ${figure(y)}, ${figure(z)} m/s²`,
    },
    {
      attribute: 'orientation',
      title: 'Orientation',
      about: 'How the device is held, up to 30 times a second',
      described: { kind: 'euler', rate_hz: 30 },
      missing: () => insecure() || ('DeviceOrientationEvent' in window ? '' : 'This browser tells no orientation.'),
      async start(emit) {
        await allowed(DeviceOrientationEvent);
        const due = pace(ORIENTATION_MS);
        const turn = (/** @type {DeviceOrientationEvent} */ event) => {
          const value = [scaled(event.gamma, RADIANS), scaled(event.beta, RADIANS), scaled(event.alpha, RADIANS)];
          const at = moment(event);
          if (value.some((one) => one !== null) && due(at)) emit(value, at);
        };
        addEventListener('deviceorientation', turn);
        return () => removeEventListener('deviceorientation', turn);
      },
      words: (value) => value.map((/** @type {number | null} */ one) => figure(scaled(one, 1 / RADIANS), 0)).join('°, ') + '°',
    },
    {
      attribute: 'position',
      title: 'Position',
      about: 'Latitude and longitude with their accuracy, when they change',
      described: { kind: 'geolocation', rate_hz: 1 },
      missing: () => insecure() || (navigator.geolocation ? '' : 'This browser tells no position.'),
      start: (emit) =>
        new Promise((begun, failed) => {
          const { geolocation } = navigator;
          const id = geolocation.watchPosition(
            ({ coords: c }) => {
              emit([c.latitude, c.longitude, scaled(c.accuracy), scaled(c.altitude), scaled(c.speed), scaled(c.heading)]);
              begun(() => geolocation.clearWatch(id));
            },
            (error) => failed(new Error(error.message || 'the position is not known')),
            { enableHighAccuracy: true },
          );
        }),
      words: ([lat, lon, accuracy]) => `${figure(lat, 5)}°, ${figure(lon, 5)}° within ${figure(accuracy, 0)} m`,
    },
    {
      attribute: 'battery',
      title: 'Battery',
      about: 'Charge, every half minute and when it changes',
      described: { kind: 'battery' },
      missing: () => ('getBattery' in navigator ? '' : 'This browser does not tell of its battery.'),
      async start(emit) {
        const battery = await /** @type {any} */ (navigator).getBattery();
        const tell = () => emit([Math.round(battery.level * 1000) / 10, battery.charging ? 1 : 0]);
        const kinds = ['levelchange', 'chargingchange'];
        for (const kind of kinds) battery.addEventListener(kind, tell);
        const timer = setInterval(tell, BATTERY_MS);
        tell();
        return () => {
          clearInterval(timer);
          for (const kind of kinds) battery.removeEventListener(kind, tell);
        };
      },
      words: ([level, charging]) => `${figure(level, 0)} %${charging ? ', charging' : ''}`,
    },
    {
      attribute: 'sound',
      title: 'Loudness',
      about: 'How loud it is, ten times a second, in dB below the loudest; no sound leaves this device',
      described: { kind: 'sound', rate_hz: 10 },
      missing: () => insecure() || ('mediaDevices' in navigator ? '' : 'This browser gives no microphone.'),
      async start(emit) {
        const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
        const context = new AudioContext();
        const analyser = context.createAnalyser();
        context.createMediaStreamSource(stream).connect(analyser);
        const wave = new Float32Array(analyser.fftSize);
        const timer = setInterval(() => {
          analyser.getFloatTimeDomainData(wave);
          const power = wave.reduce((sum, one) => sum + one * one, 0) / wave.length;
          emit(Math.max(SILENCE_DB, Math.round(100 * Math.log10(power)) / 10));
        }, SOUND_MS);
        return () => {
          clearInterval(timer);
          for (const track of stream.getTracks()) track.stop();
          context.close();
        };
      },
      words: (level) => `${figure(level, 1)} dB`,
    },
  ];
}
