// @ts-check
// The lobby. Thousands of sensors are fine: each has a card with its name, but only cards in sight have rows, are
// watched and drawn.

import * as clock from '../clock.js';
import { connect, element, get, part, write } from '../shell.js';
import { SensorCard } from './card.js';
import { WORDS } from '../state.js';

/** The list of sensors is asked for this often, for states and values of cards out of sight. */
const REFRESH_MS = 5000;
/** News of sensors are collected for this long before the list is asked for. */
const NEWS_MS = 150;
/** Ages and states are written this often. */
const TICK_MS = 500;
/** Sensors asked for at once, and how many pages of them at most. */
const PAGE = 1000;
const MAX_PAGES = 20;
/** Cards this far outside the window are kept ready. */
const MARGIN = '300px';

const live = connect();
const list = part(document, 'sensors');
const summary = part(document, 'summary');
const notice = part(document, 'notice');
const search = /** @type {HTMLInputElement} */ (part(document, 'search'));
const kind = /** @type {HTMLSelectElement} */ (part(document, 'kind'));
const sort = /** @type {HTMLSelectElement} */ (part(document, 'sort'));

/** @type {Map<string, SensorCard>} */
const cards = new Map();
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const card = cards.get(/** @type {HTMLElement} */ (target).dataset.sensor ?? '');
      if (isIntersecting) card?.open();
      else card?.close();
    }
  },
  { rootMargin: MARGIN },
);

let loading = false;
let again = false;
let failed = false;
let order = '';

async function load() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    const known = new Set();
    let cursor = '';
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const answer = await get(`sensors?limit=${PAGE}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      for (const meta of answer.sensors) {
        known.add(meta.sensor);
        take(meta);
      }
      cursor = answer.next ?? '';
      if (!cursor) break;
    }
    for (const id of [...cards.keys()]) {
      if (!known.has(id)) drop(id);
    }
    failed = false;
    arrange();
  } catch (error) {
    failed = true;
    // Between two nodes the header says what is going on.
    if (live.state !== 'live') notice.hidden = true;
    else say(`The list of sensors could not be read: ${error instanceof Error ? error.message : error}. Trying again.`, 'bad');
  }
  loading = false;
  if (again) {
    again = false;
    load();
  }
}

/** @param {import('./card.js').SensorMeta} meta */
function take(meta) {
  const known = cards.get(meta.sensor);
  if (known) {
    known.update(meta);
    return;
  }
  const card = new SensorCard(meta, live);
  cards.set(meta.sensor, card);
}

/** @param {string} id of a sensor that is gone */
function drop(id) {
  const card = cards.get(id);
  if (!card) return;
  sight.unobserve(card.root);
  card.remove();
  cards.delete(id);
}

/** Puts the cards that match into order. */
function arrange() {
  kinds();
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = [...cards.values()].filter((card) => card.matches(words, kind.value));
  const rank = { live: 0, delayed: 1, stale: 2, offline: 3 };
  const byName = (/** @type {SensorCard} */ a, /** @type {SensorCard} */ b) =>
    a.name.localeCompare(b.name, undefined, { numeric: true }) || a.id.localeCompare(b.id);
  shown.sort((a, b) => {
    if (sort.value === 'recent') return (b.newest || 0) - (a.newest || 0) || byName(a, b);
    if (sort.value === 'state') return rank[a.state] - rank[b.state] || byName(a, b);
    return byName(a, b);
  });
  const next = shown.map((card) => card.id).join(' ');
  if (next !== order) {
    order = next;
    // Moving the focused card would lose the focus; it is given back.
    const focused = document.activeElement;
    list.replaceChildren(...shown.map((card) => card.root));
    if (focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
    for (const card of cards.values()) {
      if (card.root.isConnected) sight.observe(card.root);
      else {
        sight.unobserve(card.root);
        card.close();
      }
    }
  }
  if (failed) return;
  if (shown.length > 0) {
    notice.hidden = true;
  } else if (cards.size > 0) {
    const asked = [search.value && `“${search.value}”`, kind.value && `kind ${kind.value}`].filter(Boolean);
    say(`No sensor matches ${asked.join(' and ')}. Change or clear the search to see all ${cards.size}.`);
  } else {
    say('All sensors are gone. A sensor appears here as soon as it sends a sample.');
  }
}

/** Offers each kind that some sensor has. */
function kinds() {
  const all = [...new Set([...cards.values()].flatMap((card) => card.kinds))].sort();
  const offered = [...kind.options].slice(1).map((option) => option.value);
  if (all.join() === offered.join()) return;
  const chosen = kind.value;
  kind.replaceChildren(kind.options[0], ...all.map((name) => element('option', { value: name }, [name])));
  kind.value = all.includes(chosen) ? chosen : '';
}

/**
 * @param {string} text
 * @param {string} [tone]
 */
function say(text, tone = '') {
  notice.dataset.tone = tone;
  write(notice, text);
  notice.hidden = false;
}

function tick() {
  const now = clock.now();
  const counts = { live: 0, delayed: 0, stale: 0, offline: 0 };
  for (const card of cards.values()) {
    card.tick(now);
    counts[card.state] += 1;
  }
  if (cards.size === 0) return;
  const parts = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([state, count]) => `${count} ${WORDS[/** @type {import('../state.js').Freshness} */ (state)].toLowerCase()}`);
  write(summary, `${cards.size} ${cards.size === 1 ? 'sensor' : 'sensors'}: ${parts.join(', ')}`);
}

let news = 0;
live.addEventListener('sensor', (event) => {
  const { gone, sensor } = /** @type {CustomEvent} */ (event).detail;
  // What it sends next, perhaps before the list is read again, has nothing to do with what this card drew.
  if (gone) drop(sensor);
  clearTimeout(news);
  news = window.setTimeout(load, NEWS_MS);
});
live.addEventListener('state', () => {
  if (live.state === 'live') load();
});
search.addEventListener('input', arrange);
search.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') {
    search.value = '';
    arrange();
  }
});
kind.addEventListener('change', arrange);
sort.addEventListener('change', arrange);
document.addEventListener('keydown', (event) => {
  const typing = event.target instanceof Element && event.target.closest('input, select, textarea');
  if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  search.focus();
});
setInterval(() => {
  if (!document.hidden) load();
}, REFRESH_MS);
setInterval(tick, TICK_MS);
load().then(tick);

/** For tests and curious people: what the page holds of each series. */
Object.assign(window, {
  sensorium: { live, cards, series: (/** @type {string} */ name) => seriesOf(name) },
});

/** @param {string} name `sensor/attribute` */
function seriesOf(name) {
  const [id, attribute] = name.split('/');
  return cards.get(id)?.rows.get(attribute)?.series ?? null;
}
