// @ts-check
// A room: this browser is in it under its name, sees who else is, and what the room's sensors measure.

import * as clock from '../clock.js';
import { offerCopies } from '../copy.js';
import * as person from '../person.js';
import { connect, element, get, part, write } from '../shell.js';
import { SensorCard } from './card.js';

/** News of sensors are collected for this long before the list is asked for. */
const NEWS_MS = 150;
/** Ages and states are written this often. */
const TICK_MS = 500;
/** Cards this far outside the window are kept ready. */
const MARGIN = '300px';

const room = part(document, 'room').dataset.room ?? '';
const live = connect();
const list = part(document, 'sensors');
const people = part(document, 'people');
const summary = part(document, 'summary');
const notice = part(document, 'notice');
const form = part(document, 'me');
const field = /** @type {HTMLInputElement} */ (part(document, 'my-name'));
const button = part(document, 'enter');
const invite = part(document, 'invite');

/** @typedef {{ id: string, name: string, node: string, call: boolean }} Person */
/** @type {Map<string, Person>} who is here, by id */
const here = new Map();
/** The connection that told so; another one tells everything anew. */
let toldBy = 0;
let deleted = false;

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

function enter() {
  const name = person.name();
  write(button, name ? 'Change name' : 'Enter');
  if (name && !deleted) live.enter(room, { id: person.id(), name, call: false });
}

/** @param {string} text */
function say(text) {
  write(notice, text);
  notice.hidden = text === '';
}

function showPeople() {
  const all = [...here.values()].sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
  const me = person.id();
  people.replaceChildren(
    ...all.map(({ id, name, node }) =>
      element('li', { 'data-person': id }, [
        name + (id === me ? ' (you)' : ''),
        element('span', { class: 'node' }, [` on ${node}`]),
      ]),
    ),
  );
  count();
}

function count() {
  const words = (/** @type {number} */ n, /** @type {string} */ one, /** @type {string} */ many) => `${n} ${n === 1 ? one : many}`;
  const who = person.name() ? words(here.size, 'person', 'people') : 'say your name to see who is here';
  write(summary, `${words(cards.size, 'sensor', 'sensors')}, ${who}`);
}

async function load() {
  try {
    const { sensors } = await get(`sensors?limit=1000&room=${encodeURIComponent(room)}`);
    const known = new Set(sensors.map((/** @type {import('./card.js').SensorMeta} */ meta) => meta.sensor));
    for (const [id, card] of cards) {
      if (known.has(id)) continue;
      sight.unobserve(card.root);
      card.remove();
      cards.delete(id);
    }
    for (const meta of sensors) {
      const held = cards.get(meta.sensor);
      if (held) {
        held.update(meta);
        continue;
      }
      const card = new SensorCard(meta, live);
      cards.set(meta.sensor, card);
      list.append(card.root);
      sight.observe(card.root);
    }
    if (!deleted) say('');
    count();
    tick();
  } catch (error) {
    // Between two nodes the header says what is going on.
    if (live.state === 'live' && !deleted) say(`The room's sensors could not be read: ${error instanceof Error ? error.message : error}.`);
  }
}

let news = 0;
function loadSoon() {
  clearTimeout(news);
  news = window.setTimeout(load, NEWS_MS);
}

function tick() {
  const now = clock.now();
  for (const card of cards.values()) card.tick(now);
}

live.addEventListener('presence', (event) => {
  const { room: of, joined, left } = /** @type {CustomEvent} */ (event).detail;
  if (of !== room) return;
  if (toldBy !== live.connects) here.clear();
  toldBy = live.connects;
  for (const { id } of left) here.delete(id);
  for (const who of joined) here.set(who.id, who);
  showPeople();
});
live.addEventListener('room', (event) => {
  const now = /** @type {CustomEvent} */ (event).detail;
  if (now.room !== room) return;
  if (now.gone) {
    deleted = true;
    form.hidden = true;
    invite.hidden = true;
    say('This room was deleted.');
  } else {
    write(part(document, 'name'), now.name);
    invite.hidden = now.join_code === null;
    const line = invite.querySelector('pre code');
    if (line) write(line, line.textContent?.replace(/[^/]*$/, now.join_code ?? '') ?? '');
    write(part(document, 'code'), now.join_code ?? '');
  }
  loadSoon();
});
live.addEventListener('sensor', loadSoon);
live.addEventListener('state', () => {
  if (live.state === 'live') load();
});
form.addEventListener('submit', (event) => {
  event.preventDefault();
  if (!field.value.trim()) return;
  person.call(field.value);
  enter();
  count();
});
setInterval(tick, TICK_MS);
offerCopies();
field.value = person.name();
enter();
load();

/** For tests and curious people. */
Object.assign(window, { sensorium: { live, cards, people: here } });
