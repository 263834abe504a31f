// @ts-check
// What one does to a room: lets others in, adds and takes away sensors, names it; and sets the limits of a tile.

import { offerCopies } from '../copy.js';
import { limitsOf, setLimits } from '../limits.js';
import * as nodes from '../nodes.js';
import { picture } from '../qr.js';
import { element, get, part, send, write } from '../shell.js';

/** Sensors offered at once. */
const OFFERED = 20;
/** After the last key, so long until the search. */
const TYPING_MS = 200;

/** @param {string} role @returns {HTMLDialogElement} */
function dialog(role) {
  const found = /** @type {HTMLDialogElement} */ (part(document, role));
  // A click on the ground beside it closes it.
  found.addEventListener('click', (event) => {
    if (event.target === found) found.close();
  });
  for (const button of document.querySelectorAll(`[data-role="open-${role}"]`)) {
    button.addEventListener('click', () => {
      found.showModal();
      found.dispatchEvent(new Event('open'));
    });
  }
  return found;
}

/** @param {unknown} error */
function reason(error) {
  return error instanceof Error ? error.message : String(error);
}

/** Link, code and QR code, of the address that the page is on. */
export class Share {
  /** @param {string} room */
  constructor(room) {
    this.root = dialog('share');
    this.invite = part(this.root, 'invite');
    this.code = part(this.root, 'code');
    this.note = part(this.root, 'share-note');
    this.qr = part(this.root, 'qr');
    this.near = part(this.root, 'near');
    this.line = /** @type {HTMLElement} */ (this.root.querySelector('pre code'));
    offerCopies();
    part(this.root, 'renew').addEventListener('click', async () => {
      try {
        this.show((await send('POST', `rooms/${encodeURIComponent(room)}/join-code`)).join_code);
        write(this.note, 'This is the new code. The old one opens nothing any more.');
      } catch (error) {
        write(this.note, `There is no new code: ${reason(error)}.`);
      }
    });
    nodes.moves.addEventListener('move', () => this.show(this.code.textContent));
    this.show(this.code.textContent);
  }

  /** @param {string | null} code */
  show(code) {
    this.invite.hidden = !code;
    if (!code) return;
    const { base } = nodes.at();
    const link = `${base}/join/${code}`;
    this.near.hidden = !/^(localhost|127\.|\[::1\])/.test(new URL(base).hostname);
    write(this.code, code);
    if (write(this.line, link) || !this.qr.firstChild) {
      const drawn = picture(link);
      this.qr.replaceChildren(...(drawn ? [drawn] : []));
    }
  }
}

/** The room's sensors and name. */
export class Edit {
  /**
   * @param {string} room
   * @param {() => import('../tiles/tile.js').SensorMeta[]} held the sensors that are in it
   */
  constructor(room, held) {
    this.path = `rooms/${encodeURIComponent(room)}`;
    this.held = held;
    this.root = dialog('edit');
    this.members = part(this.root, 'members');
    this.found = part(this.root, 'found');
    this.note = part(this.root, 'edit-note');
    this.find = /** @type {HTMLInputElement} */ (part(this.root, 'find'));
    this.timer = 0;
    this.asked = 0;
    this.find.addEventListener('input', () => {
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.#search(), TYPING_MS);
    });
    this.root.addEventListener('open', () => {
      this.show();
      this.#search();
    });
    const name = /** @type {HTMLInputElement} */ (part(this.root, 'room-name'));
    part(this.root, 'rename-room').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#change('PATCH', this.path, { name: name.value }, 'The room has its new name.');
    });
  }

  /** The room's sensors have changed. */
  show() {
    if (!this.root.open) return;
    const held = this.held();
    pick(this.members, held, 'Remove', (sensor) =>
      this.#change('DELETE', this.#of(sensor), undefined, `${sensor.name || sensor.sensor} is no longer in this room.`),
    );
    if (held.length === 0 && !this.members.firstChild) this.members.append(element('li', { class: 'hint' }, ['None yet.']));
    this.#offer();
  }

  async #search() {
    this.asked += 1;
    const asked = this.asked;
    try {
      const { sensors } = await get(`sensors?limit=${OFFERED}&q=${encodeURIComponent(this.find.value.trim())}`);
      if (asked !== this.asked) return;
      this.sensors = sensors;
      this.#offer();
    } catch (error) {
      write(this.note, `The search failed: ${reason(error)}.`);
    }
  }

  #offer() {
    const held = new Set(this.held().map(({ sensor }) => sensor));
    const others = (this.sensors ?? []).filter((/** @type {import('../tiles/tile.js').SensorMeta} */ { sensor }) => !held.has(sensor));
    pick(this.found, others, 'Add', (sensor) =>
      this.#change('PUT', this.#of(sensor), undefined, `${sensor.name || sensor.sensor} is in this room now.`),
    );
    if (others.length === 0 && !this.found.firstChild) this.found.append(element('li', { class: 'hint' }, ['No other sensor is found.']));
  }

  /** @param {import('../tiles/tile.js').SensorMeta} sensor */
  #of(sensor) {
    return `${this.path}/sensors/${encodeURIComponent(sensor.sensor)}`;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object | undefined} body
   * @param {string} done
   */
  async #change(method, path, body, done) {
    try {
      await send(method, path, body);
      write(this.note, done);
    } catch (error) {
      write(this.note, `That did not work: ${reason(error)}.`);
    }
  }
}

/**
 * Lists sensors, each with a button. Those that stay keep the focus.
 * @param {HTMLElement} list
 * @param {import('../tiles/tile.js').SensorMeta[]} sensors
 * @param {string} verb
 * @param {(sensor: import('../tiles/tile.js').SensorMeta) => void} act
 */
function pick(list, sensors, verb, act) {
  // What looks the same stays, so that nothing is replaced under a finger.
  const look = JSON.stringify(sensors.map(({ sensor, name, attributes }) => [sensor, name, Object.keys(attributes)]));
  if (list.dataset.look === look) return;
  list.dataset.look = look;
  const had = document.activeElement instanceof HTMLElement && list.contains(document.activeElement);
  const focused = had ? document.activeElement?.closest('li')?.dataset.pick : undefined;
  const place = had ? [...list.children].findIndex((item) => item.contains(document.activeElement)) : -1;
  list.replaceChildren(
    ...sensors.map((sensor) => {
      const name = sensor.name || sensor.sensor;
      const button = element('button', { type: 'button', 'aria-label': `${verb} ${name}` }, [verb]);
      button.addEventListener('click', () => act(sensor));
      const more = [sensor.name ? sensor.sensor : '', ...Object.keys(sensor.attributes)].filter(Boolean).join(' · ');
      return element('li', { 'data-pick': sensor.sensor }, [
        element('span', {}, [name, ' ', element('span', { class: 'hint' }, [more])]),
        button,
      ]);
    }),
  );
  if (!had) return;
  const same = [...list.children].find((item) => /** @type {HTMLElement} */ (item).dataset.pick === focused);
  const next = same ?? list.children[Math.min(place, list.children.length - 1)];
  /** @type {HTMLElement | null | undefined} */ (next?.querySelector('button'))?.focus();
}

/** The limits of one tile after the other. */
export class LimitsDialog {
  constructor() {
    this.root = dialog('limits');
    this.title = /** @type {HTMLElement} */ (this.root.querySelector('h2'));
    this.low = /** @type {HTMLInputElement} */ (part(this.root, 'low'));
    this.high = /** @type {HTMLInputElement} */ (part(this.root, 'high'));
    /** @type {import('../tiles/lines.js').LinesTile | null} */
    this.tile = null;
    part(this.root, 'limits-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const read = (/** @type {HTMLInputElement} */ { value }) => (value === '' ? null : Number(value));
      if (this.tile) {
        setLimits(this.tile.name, { low: read(this.low), high: read(this.high) });
        this.tile.limitsChanged();
      }
      this.root.close();
    });
  }

  /** @param {import('../tiles/lines.js').LinesTile} tile */
  ask(tile) {
    this.tile = tile;
    const unit = tile.unit(0);
    write(this.title, `Limits of ${tile.attribute}${unit ? ` in ${unit}` : ''}`);
    const { low, high } = limitsOf(tile.name, tile.meta.kind);
    this.low.value = low === null ? '' : String(low);
    this.high.value = high === null ? '' : String(high);
    this.root.showModal();
  }
}
