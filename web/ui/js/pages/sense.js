// @ts-check
// This browser as a sensor: what may be measured is chosen one by one, shown as it is sent, and ended at any time.

import * as clock from '../clock.js';
import { keep, read } from '../keep.js';
import * as person from '../person.js';
import { Outlet } from '../sense/outlet.js';
import { sources } from '../sense/sources.js';
import { connect, element, get, part, send, write } from '../shell.js';
import { show } from '../state.js';
import { whole } from '../format.js';

/** What is being measured is written this often. */
const TICK_MS = 250;
/** How much of the person's id is in the sensor's. */
const ID_CHARS = 10;

const live = connect();
const outlet = new Outlet();
const sensor = `browser-${person.id().slice(0, ID_CHARS)}`;
const list = part(document, 'sources');
const state = part(document, 'outlet');
const stop = part(document, 'stop');
const note = part(document, 'note');
const counts = part(document, 'counts');
const watch = part(document, 'watch');
const room = /** @type {HTMLSelectElement} */ (part(document, 'room'));
const name = /** @type {HTMLInputElement} */ (part(document, 'device-name'));
const all = sources(part(document, 'pad'), part(document, 'press'));

/** @type {Map<string, { end: () => void, said: HTMLElement, last: any }>} what is measured, by attribute */
const running = new Map();
/** @type {Map<string, HTMLInputElement>} */
const boxes = new Map();

/** Says hello with what is measured now, or goodbye. */
function announce() {
  const chosen = all.filter(({ attribute }) => running.has(attribute));
  stop.hidden = chosen.length === 0;
  if (chosen.length === 0) outlet.end();
  else outlet.begin(sensor, name.value.trim(), Object.fromEntries(chosen.map(({ attribute, described }) => [attribute, described])));
}

/** @param {import('../sense/sources.js').Source} source @param {HTMLElement} said */
async function start(source, said) {
  const { attribute, title } = source;
  const entry = { end: () => {}, said, last: /** @type {any} */ (null) };
  running.set(attribute, entry);
  announce();
  try {
    const end = await source.start((value, at = clock.now()) => {
      if (!running.has(attribute)) return;
      entry.last = value;
      outlet.put({ attribute, ts: Math.round(at * 1000) / 1000, value });
    });
    // It may have been stopped while the browser asked its user.
    if (running.get(attribute) === entry) entry.end = end;
    else end();
    write(note, '');
    enterRoom();
  } catch (error) {
    halt(attribute);
    write(note, `${title} is not measured: ${error instanceof Error ? error.message : error}.`);
  }
}

/** @param {string} attribute */
function halt(attribute) {
  const entry = running.get(attribute);
  const box = boxes.get(attribute);
  if (box) box.checked = false;
  if (!entry) return;
  entry.end();
  write(entry.said, '');
  running.delete(attribute);
  announce();
}

for (const source of all) {
  const missing = source.missing();
  const said = element('span', { class: 'source-said', 'data-role': 'said' });
  const box = /** @type {HTMLInputElement} */ (element('input', { type: 'checkbox', 'data-source': source.attribute }));
  box.disabled = missing !== '';
  boxes.set(source.attribute, box);
  box.addEventListener('change', () => (box.checked ? start(source, said) : halt(source.attribute)));
  list.append(
    element('li', {}, [
      element('label', {}, [box, element('span', {}, [element('strong', {}, [source.title]), element('span', { class: 'hint' }, [missing || source.about])])]),
      said,
    ]),
  );
}

/** Puts the sensor into the chosen room. */
async function enterRoom() {
  const chosen = room.value;
  const page = chosen ? `/rooms/${encodeURIComponent(chosen)}` : `/sensors/${sensor}`;
  watch.setAttribute('href', page);
  write(watch, chosen ? 'Open the room' : 'Open its page');
  if (!chosen || running.size === 0) return;
  try {
    await send('PUT', `rooms/${encodeURIComponent(chosen)}/sensors/${sensor}`);
  } catch (error) {
    write(note, `It is not in the room: ${error instanceof Error ? error.message : error}.`);
  }
}

async function loadRooms() {
  try {
    const { rooms } = await get('rooms');
    const wanted = room.value || new URLSearchParams(location.search).get('room') || '';
    room.replaceChildren(
      room.options[0],
      ...rooms.map((/** @type {{ room: string, name: string }} */ one) => element('option', { value: one.room }, [one.name])),
    );
    room.value = rooms.some((/** @type {{ room: string }} */ one) => one.room === wanted) ? wanted : '';
    enterRoom();
  } catch {
    // The node is away for a moment; the next one is asked.
  }
}

function tick() {
  const words = { idle: 'Nothing is sent', connecting: 'Connecting…', sending: 'Sending', paused: 'The node asks to wait' };
  const colors = { idle: 'offline', connecting: 'reconnecting', sending: 'live', paused: 'delayed' };
  show(state, colors[outlet.state], words[outlet.state]);
  const { acknowledged, refused, dropped } = outlet.counts;
  const told = [
    acknowledged && `${whole(acknowledged)} kept by the cluster`,
    outlet.open && `${whole(outlet.open)} on the way`,
    refused && `${whole(refused)} refused: ${outlet.complaint}`,
    dropped && `${whole(dropped)} dropped, since no node took them in time`,
  ].filter(Boolean);
  write(counts, told.join(' · '));
  for (const source of all) {
    const entry = running.get(source.attribute);
    if (entry && entry.last !== null) write(entry.said, source.words(entry.last));
  }
}

name.value = read('device') || (person.name() ? `${person.name()}’s device` : 'My device');
name.addEventListener('change', () => {
  keep('device', name.value.trim());
  if (running.size > 0) announce();
});
room.addEventListener('change', enterRoom);
stop.addEventListener('click', () => {
  for (const attribute of [...running.keys()]) halt(attribute);
  tick();
});
live.addEventListener('room', loadRooms);
live.addEventListener('state', () => {
  if (live.state === 'live') loadRooms();
});
setInterval(tick, TICK_MS);
loadRooms();
tick();

/** For tests and curious people. */
Object.assign(window, { sensorium: { live, outlet, sensor } });
