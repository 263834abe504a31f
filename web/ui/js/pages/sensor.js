// @ts-check
// The sensor page: each attribute is a card of its own; this file connects them to the node, to the keyboard and to
// attributes that appear later.

import * as clock from '../clock.js';
import { ask } from '../nodes.js';
import { Refused, connect, get, part, write } from '../shell.js';
import { show } from '../state.js';
import { showLedger } from './ledger.js';
import { NumbersCard } from './numbers.js';
import { TextsCard } from './texts.js';

/** The descriptor is asked for this often: new attributes, channels, whether a device is connected. */
const REFRESH_MS = 3000;
/** Ages, states and statistics are written this often. */
const TICK_MS = 250;

const head = part(document, 'sensor');
const sensor = head.dataset.sensor ?? '';
const list = part(document, 'attributes');
const pill = part(document, 'sensor-state');
const notice = part(document, 'notice');
const ledger = part(document, 'ledger');
const live = connect();
let online = head.dataset.online === 'true';

/** @type {Map<string, NumbersCard | TextsCard>} by attribute */
const cards = new Map();

/** The sensor was cleared: what is drawn is gone everywhere. */
function empty() {
  for (const card of cards.values()) {
    card.close();
    card.root.remove();
  }
  cards.clear();
  online = false;
  show(pill, 'offline', 'Not connected');
  notice.dataset.tone = '';
  write(notice, 'This sensor was cleared. What it sends next appears here.');
  notice.hidden = false;
}

/** @param {HTMLElement} root a rendered attribute */
function begin(root) {
  const attribute = root.dataset.attribute ?? '';
  const name = `${sensor}/${attribute}`;
  const card = root.querySelector('[data-role="events"]')
    ? new TextsCard(root, name, live)
    : new NumbersCard(root, name, live);
  cards.set(attribute, card);
}

for (const root of list.querySelectorAll('[data-role="attribute"]')) begin(/** @type {HTMLElement} */ (root));

/** Asks what is known of the sensor; parts that changed are taken from this page as the server renders it now. */
async function refresh() {
  try {
    const meta = await get(`sensors/${encodeURIComponent(sensor)}`);
    online = meta.online;
    show(pill, online ? 'live' : 'offline', online ? 'Connected' : 'Not connected');
    notice.hidden = true;
    const changed = Object.entries(meta.attributes).filter(
      ([attribute, { channels }]) => cards.get(attribute)?.channels !== channels.join(','),
    );
    showLedger(ledger, sensor).catch(() => {
      // The node is away for a moment; the words stay.
    });
    if (changed.length > 0) await replace(changed.map(([attribute]) => attribute));
  } catch (error) {
    if (live.state !== 'live') return;
    if (error instanceof Refused && error.status === 404) return empty();
    notice.dataset.tone = 'bad';
    write(notice, `The sensor could not be read: ${error instanceof Error ? error.message : error}. Trying again.`);
    notice.hidden = false;
  }
}

/** @param {string[]} attributes whose cards are new or out of date */
async function replace(attributes) {
  const response = await ask(location.pathname);
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  for (const attribute of attributes) {
    const fresh = page.querySelector(`[data-role="attribute"][data-attribute="${CSS.escape(attribute)}"]`);
    if (!(fresh instanceof HTMLElement)) continue;
    const root = document.importNode(fresh, true);
    const old = cards.get(attribute);
    old?.close();
    if (old) old.root.replaceWith(root);
    else insert(root, attribute);
    begin(root);
  }
  document.querySelector('[data-role="empty"]')?.remove();
}

/**
 * Puts a card where the server would: in order of names.
 * @param {HTMLElement} root
 * @param {string} attribute
 */
function insert(root, attribute) {
  const after = [...list.children].find(
    (other) => other instanceof HTMLElement && (other.dataset.attribute ?? '') > attribute,
  );
  list.insertBefore(root, after ?? null);
}

document.addEventListener('keydown', (event) => {
  if (event.key !== ' ' || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target instanceof Element && target.closest('button, a, input, select, textarea, [data-role="chart"]')) return;
  event.preventDefault();
  const charts = [...cards.values()].filter((card) => card instanceof NumbersCard);
  const pause = charts.some((card) => !card.view.paused);
  for (const { view } of charts) {
    if (pause) view.pause();
    else view.live();
  }
});

live.addEventListener('sensor', (event) => {
  const news = /** @type {CustomEvent} */ (event).detail;
  if (news.gone && news.sensor === sensor) empty();
  else if (!news.sensor || news.sensor === sensor || news.sensor.sensor === sensor) refresh();
});
live.addEventListener('state', () => {
  if (live.state === 'live') refresh();
  // Without a node nobody knows whether the device is there.
  else if (live.state !== 'delayed') show(pill, 'unknown', 'Unknown');
});
setInterval(() => {
  if (!document.hidden) refresh();
}, REFRESH_MS);
refresh();
setInterval(() => {
  for (const card of cards.values()) card.tick(clock.now(), online);
}, TICK_MS);

/** For tests and curious people: what the page holds of each series, by `sensor/attribute`. */
Object.assign(window, {
  sensorium: {
    live,
    cards,
    series: (/** @type {string} */ name) => cards.get(name.slice(sensor.length + 1))?.series ?? null,
  },
});
