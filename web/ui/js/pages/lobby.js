// @ts-check
// The lobby. Thousands of sensors are fine: only those in sight have a card, are watched and drawn.

import * as clock from '../clock.js';
import { connect, element, get, part, write } from '../shell.js';
import * as favourites from '../favourites.js';
import { WORDS } from '../state.js';
import { SensorCard } from './card.js';
import { RoomsList } from './rooms-list.js';
import { Shelf } from './shelf.js';

/** The list of sensors is asked for this often, for states and values of cards out of sight; a long one less often. */
const REFRESH_MS = 5000;
const REFRESH_MS_PER_SENSOR = 4;
/** News of sensors are collected for this long before the list is asked for. */
const NEWS_MS = 150;
/** Ages and states are written this often. */
const TICK_MS = 500;
/** Sensors asked for at once, and how many pages of them at most. */
const PAGE = 1000;
const MAX_PAGES = 20;

/** Names as people order them. */
const COLLATOR = new Intl.Collator(undefined, { numeric: true });

const live = connect();
const list = part(document, 'sensors');
const summary = part(document, 'summary');
const notice = part(document, 'notice');
const search = /** @type {HTMLInputElement} */ (part(document, 'search'));
const kind = /** @type {HTMLSelectElement} */ (part(document, 'kind'));
const sort = /** @type {HTMLSelectElement} */ (part(document, 'sort'));

/** @type {Map<string, SensorCard>} */
const cards = new Map();
/** @type {Shelf<SensorCard>} */
const shelf = new Shelf(list);
const rooms = new RoomsList(live);

let loading = false;
let again = false;
let failed = false;
let order = '';
let loadedAt = 0;

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
      // The first page is there to be seen before the others are.
      if (order === '') arrange();
      cursor = answer.next ?? '';
      if (!cursor) break;
    }
    for (const id of [...cards.keys()]) {
      if (!known.has(id)) drop(id);
    }
    failed = false;
    loadedAt = performance.now();
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
  cards.set(meta.sensor, new SensorCard(meta, live, arrange));
}

/** @param {string} id of a sensor that is gone */
function drop(id) {
  const card = cards.get(id);
  if (!card) return;
  card.remove();
  cards.delete(id);
  order = '';
}

/** Puts the cards that match into order. */
function arrange() {
  kinds();
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.join(' ') !== rooms.words.join(' ')) rooms.search(words);
  const shown = [...cards.values()].filter((card) => card.matches(words, kind.value));
  const rank = { live: 0, delayed: 1, stale: 2, offline: 3 };
  const first = new Set(shown.filter((card) => favourites.has(`sensor/${card.id}`)));
  const byName = (/** @type {SensorCard} */ a, /** @type {SensorCard} */ b) =>
    COLLATOR.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
  /** @type {Record<string, (a: SensorCard, b: SensorCard) => number>} */
  const orders = {
    name: () => 0,
    recent: (a, b) => (b.newest || 0) - (a.newest || 0),
    state: (a, b) => rank[a.state] - rank[b.state],
    kind: (a, b) => COLLATOR.compare(a.kinds[0] ?? '', b.kinds[0] ?? ''),
    battery: (a, b) => (a.battery === b.battery ? 0 : a.battery - b.battery),
  };
  const chosen = orders[sort.value] ?? byName;
  shown.sort((a, b) => Number(first.has(b)) - Number(first.has(a)) || chosen(a, b) || byName(a, b));
  const next = shown.map((card) => `${card.id} ${card.height}`).join();
  if (next !== order) {
    order = next;
    shelf.arrange(shown);
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
  const rest = performance.now() - loadedAt;
  if (!document.hidden && rest > cards.size * REFRESH_MS_PER_SENSOR) load();
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
