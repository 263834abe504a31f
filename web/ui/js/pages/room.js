// @ts-check
// A room: this browser is in it under its name, sees who else is, and what the room's sensors measure.

import { Cursor } from '../charts/cursor.js';
import { View, WINDOWS } from '../charts/view.js';
import * as clock from '../clock.js';
import { timeOfDay } from '../format.js';
import { keep, read } from '../keep.js';
import { connect, get, part, write } from '../shell.js';
import { show } from '../state.js';
import { Grid } from '../tiles/grid.js';
import { LinesTile } from '../tiles/lines.js';
import { Company } from './company.js';
import { Edit, LimitsDialog, Share } from './room-dialogs.js';

/** News of sensors are collected for this long before the list is asked for. */
const NEWS_MS = 150;
/** The list is asked for this often, for names and whether devices are connected. */
const REFRESH_MS = 5000;
/** Ages, values and states are written this often. */
const TICK_MS = 250;
/** Sensors asked for at once. */
const PAGE = 1000;
/** The window that a room begins with, unless another was chosen before. */
const WINDOW_MS = 30_000;

const room = part(document, 'room').dataset.room ?? '';
const live = connect();
const summary = part(document, 'summary');
const notice = part(document, 'notice');
const list = part(document, 'tiles');
const play = part(document, 'play');
const empty = part(document, 'empty');
const at = part(document, 'at');
const kept = Number(read('window'));
const view = new View(WINDOWS.includes(kept) ? kept : WINDOW_MS);
const cursor = new Cursor(view);
const grid = new Grid(list, { live, view, cursor });
const company = new Company(room, live);
const share = new Share(room);
/** @type {import('../tiles/tile.js').SensorMeta[]} */
let sensors = [];
const edit = new Edit(room, () => sensors);
const limits = new LimitsDialog();
let deleted = false;
let loaded = false;

/** @param {string} text */
function say(text) {
  write(notice, text);
  notice.hidden = text === '';
}

function count() {
  const own = `${sensors.length} ${sensors.length === 1 ? 'sensor' : 'sensors'}`;
  if (loaded) write(summary, `${own}, ${company.words}`);
}

let loading = false;
let again = false;
async function load() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    const found = [];
    let cursorOf = '';
    do {
      const more = cursorOf && `&cursor=${encodeURIComponent(cursorOf)}`;
      const answer = await get(`sensors?limit=${PAGE}&room=${encodeURIComponent(room)}${more}`);
      found.push(...answer.sensors);
      cursorOf = answer.next ?? '';
    } while (cursorOf);
    sensors = found;
    loaded = true;
    grid.show(sensors);
    edit.show();
    empty.hidden = sensors.length > 0 || deleted;
    if (!deleted) say('');
    count();
    grid.tick(clock.now());
  } catch (error) {
    // Between two nodes the header says what is going on.
    if (live.state === 'live' && !deleted) say(`The room's sensors could not be read: ${error instanceof Error ? error.message : error}. Trying again.`);
  }
  loading = false;
  if (again) {
    again = false;
    load();
  }
}

let news = 0;
function loadSoon() {
  clearTimeout(news);
  news = window.setTimeout(load, NEWS_MS);
}

function viewChanged() {
  show(play, view.paused ? 'paused' : 'live', view.paused ? 'Paused' : 'Live');
  play.title = view.paused ? 'Go live (space)' : 'Pause (space)';
  for (const button of document.querySelectorAll('[data-window]')) {
    const chosen = Number(/** @type {HTMLElement} */ (button).dataset.window) === view.windowMs;
    button.setAttribute('aria-pressed', String(chosen));
  }
}

/** @param {string} size */
function resize(size) {
  list.dataset.size = size;
  for (const button of document.querySelectorAll('[data-size]:not(ul)')) {
    button.setAttribute('aria-pressed', String(/** @type {HTMLElement} */ (button).dataset.size === size));
  }
}

/** The moment that the cursor is on. */
function pointed() {
  write(at, cursor.shown ? `At ${timeOfDay(view.right - cursor.ago, 100)}` : '');
}

view.addEventListener('change', viewChanged);
cursor.addEventListener('change', pointed);
play.addEventListener('click', () => view.toggle());
part(document, 'tools').addEventListener('click', (event) => {
  const button = event.target instanceof Element ? event.target.closest('button') : null;
  if (button?.dataset.window) {
    view.choose(Number(button.dataset.window));
    keep('window', button.dataset.window);
  }
  if (button?.dataset.size) {
    resize(button.dataset.size);
    keep('tiles', button.dataset.size);
  }
});
list.addEventListener('click', (event) => {
  const button = event.target instanceof Element ? event.target.closest('[data-role="limits-of"]') : null;
  const tile = button && grid.byRoot.get(/** @type {Element} */ (button.closest('[data-role="tile"]')));
  if (tile instanceof LinesTile) limits.ask(tile);
});
document.addEventListener('keydown', (event) => {
  if (event.key !== ' ' || event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  if (target instanceof Element && target.closest('button, a, input, select, textarea, dialog, [data-role="chart"]')) return;
  event.preventDefault();
  view.toggle();
});
live.addEventListener('room', (event) => {
  const now = /** @type {CustomEvent} */ (event).detail;
  if (now.room !== room) return;
  if (now.gone) {
    deleted = true;
    company.close();
    share.show(null);
    say('This room was deleted.');
  } else {
    write(part(document, 'name'), now.name);
    share.show(now.join_code);
  }
  loadSoon();
});
live.addEventListener('sensor', (event) => {
  const { gone, sensor } = /** @type {CustomEvent} */ (event).detail;
  if (gone) grid.cleared(sensor);
  loadSoon();
});
live.addEventListener('state', () => {
  if (live.state === 'live') load();
});
company.addEventListener('change', count);
setInterval(() => {
  grid.tick(clock.now());
  pointed();
}, TICK_MS);
setInterval(() => {
  if (!document.hidden && !deleted) load();
}, REFRESH_MS);
resize(['small', 'large'].includes(read('tiles')) ? read('tiles') : 'medium');
viewChanged();
load();

/** For tests and curious people. */
Object.assign(window, {
  sensorium: {
    live,
    view,
    cursor,
    tiles: grid.tiles,
    people: company.here,
    series: (/** @type {string} */ name) => grid.tiles.get(name)?.series ?? null,
  },
});
