// @ts-check
// The rooms in the lobby: found by the same search as sensors; one is made, or joined by its code.

import * as favourites from '../favourites.js';
import { go } from '../nodes.js';
import { element, get, part, send, write } from '../shell.js';
import { star } from './star.js';

/** Rooms shown at once; the search finds the others. */
const SHOWN = 60;
/** News of rooms are collected for this long before the list is asked for. */
const NEWS_MS = 150;

/** @typedef {{ room: string, name: string, temporary: boolean, sensors: string[] }} Room */

export class RoomsList {
  /** @param {import('../live.js').Live} live */
  constructor(live) {
    this.list = part(document, 'rooms');
    this.note = part(document, 'rooms-note');
    /** @type {Room[]} */
    this.rooms = [];
    /** @type {string[]} */
    this.words = [];
    this.look = '';
    let news = 0;
    live.addEventListener('room', () => {
      clearTimeout(news);
      news = window.setTimeout(() => this.load(), NEWS_MS);
    });
    live.addEventListener('state', () => {
      if (live.state === 'live') this.load();
    });
    this.#forms();
    this.load();
  }

  async load() {
    try {
      this.rooms = (await get('rooms')).rooms;
      this.show();
    } catch {
      // The list of sensors says what is wrong; this one keeps what it shows.
    }
  }

  /** @param {string[]} words that must be found in a room's name or id */
  search(words) {
    this.words = words;
    this.show();
  }

  show() {
    const matches = (/** @type {Room} */ { room, name }) =>
      this.words.every((word) => `${name} ${room}`.toLowerCase().includes(word));
    const first = (/** @type {Room} */ { room }) => (favourites.has(`room/${room}`) ? 0 : 1);
    const found = this.rooms
      .filter(matches)
      .sort((a, b) => first(a) - first(b) || a.name.localeCompare(b.name, undefined, { numeric: true }) || a.room.localeCompare(b.room));
    const more = found.length > SHOWN ? `${found.length - SHOWN} more: search for them by name.` : '';
    const none = this.rooms.length === 0 ? 'None yet. A room gathers sensors and the people who watch them.' : 'No room matches.';
    write(this.note, found.length === 0 ? none : more);
    // What looks the same stays, so that nothing is replaced under a finger.
    const look = JSON.stringify(found.slice(0, SHOWN).map((one) => [one, first(one)]));
    if (look === this.look) return;
    this.look = look;
    const focused = document.activeElement?.closest('[data-room]');
    const had = focused instanceof HTMLElement && this.list.contains(focused) ? focused.dataset.room : undefined;
    const wasStar = document.activeElement?.matches('.star');
    this.list.replaceChildren(
      ...found.slice(0, SHOWN).map(({ room, name, temporary, sensors }) => {
        const count = `${sensors.length} ${sensors.length === 1 ? 'sensor' : 'sensors'}`;
        return element('li', { class: 'room-card', 'data-room': room }, [
          element('a', { href: `/rooms/${encodeURIComponent(room)}` }, [name]),
          element('span', { class: 'hint' }, [temporary ? `${count} · temporary` : count]),
          star(`room/${room}`, name, () => this.show()),
        ]);
      }),
    );
    if (had) {
      const same = this.list.querySelector(`[data-room="${CSS.escape(had)}"] ${wasStar ? '.star' : 'a'}`);
      if (same instanceof HTMLElement) same.focus({ preventScroll: true });
    }
  }

  #forms() {
    const make = /** @type {HTMLFormElement} */ (part(document, 'make-room'));
    const name = /** @type {HTMLInputElement} */ (part(make, 'room-name'));
    const temporary = /** @type {HTMLInputElement} */ (part(make, 'temporary'));
    make.addEventListener('submit', async (event) => {
      event.preventDefault();
      try {
        const made = await send('POST', 'rooms', { name: name.value.trim(), temporary: temporary.checked });
        go(`/rooms/${encodeURIComponent(made.room)}`);
      } catch (error) {
        write(part(make, 'said'), `The room was not made: ${error instanceof Error ? error.message : error}.`);
      }
    });
    const join = /** @type {HTMLFormElement} */ (part(document, 'join-room'));
    const code = /** @type {HTMLInputElement} */ (part(join, 'join-code'));
    join.addEventListener('submit', async (event) => {
      event.preventDefault();
      const text = code.value.replace(/[\s-]/g, '');
      try {
        await get(`join/${encodeURIComponent(text)}`);
        go(`/join/${encodeURIComponent(text)}`);
      } catch (error) {
        write(part(join, 'said'), `This code opens no room: ${error instanceof Error ? error.message : error}.`);
      }
    });
  }
}
