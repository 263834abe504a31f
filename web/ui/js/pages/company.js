// @ts-check
// Who is in a room and in its call, and this browser's user among them.

import * as person from '../person.js';
import { element, part, write } from '../shell.js';

/** @typedef {{ id: string, name: string, node: string, call: boolean, since: number }} Person */

export class Company extends EventTarget {
  /**
   * @param {string} room
   * @param {import('../live.js').Live} live
   */
  constructor(room, live) {
    super();
    this.room = room;
    this.live = live;
    /** @type {Map<string, Person>} who is here, by id */
    this.here = new Map();
    /** The connection that told so; another one tells everything anew. */
    this.toldBy = 0;
    this.inCall = false;
    this.list = part(document, 'people');
    this.form = part(document, 'me');
    this.field = /** @type {HTMLInputElement} */ (part(document, 'my-name'));
    this.button = part(document, 'enter');
    this.callButton = part(document, 'call');
    this.renameButton = part(document, 'rename');
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (!this.field.value.trim()) return;
      person.call(this.field.value);
      this.form.hidden = true;
      this.enter();
    });
    this.renameButton.addEventListener('click', () => {
      this.form.hidden = !this.form.hidden;
      if (!this.form.hidden) this.field.select();
    });
    this.callButton.addEventListener('click', () => {
      this.inCall = !this.inCall;
      this.enter();
    });
    live.addEventListener('presence', (event) => this.#told(/** @type {CustomEvent} */ (event).detail));
    this.field.value = person.name();
    this.enter();
  }

  /** Is in the room, under the name and in the call or not as chosen. */
  enter() {
    const name = person.name();
    this.form.hidden = name !== '' && (this.form.hidden || document.activeElement !== this.field);
    write(this.button, name ? 'Change name' : 'Enter');
    this.callButton.hidden = this.renameButton.hidden = name === '';
    this.callButton.setAttribute('aria-pressed', String(this.inCall));
    write(this.callButton, this.inCall ? 'Leave the call' : 'Join the call');
    if (name) this.live.enter(this.room, { id: person.id(), name, call: this.inCall });
    this.dispatchEvent(new Event('change'));
  }

  /** The room is gone, and nobody is in it. */
  close() {
    this.form.hidden = this.callButton.hidden = this.renameButton.hidden = true;
  }

  /** How many are here, in words. */
  get words() {
    if (!person.name()) return 'say your name to see who is here';
    const calling = [...this.here.values()].filter(({ call }) => call).length;
    const people = `${this.here.size} ${this.here.size === 1 ? 'person' : 'people'}`;
    return calling ? `${people}, ${calling} in the call` : people;
  }

  /** @param {{ room: string, joined: Person[], left: Person[] }} news */
  #told({ room, joined, left }) {
    if (room !== this.room) return;
    if (this.toldBy !== this.live.connects) this.here.clear();
    this.toldBy = this.live.connects;
    for (const { id } of left) this.here.delete(id);
    for (const who of joined) this.here.set(who.id, who);
    this.#show();
  }

  #show() {
    const me = person.id();
    const all = [...this.here.values()].sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
    this.list.replaceChildren(
      ...all.map(({ id, name, node, call }) =>
        element('li', { 'data-person': id, 'data-call': String(call) }, [
          element('span', { class: 'who' }, [name + (id === me ? ' (you)' : '')]),
          ...(call ? [element('span', { class: 'in-call' }, ['in the call'])] : []),
          element('span', { class: 'node' }, [`on ${node}`]),
        ]),
      ),
    );
    this.dispatchEvent(new Event('change'));
  }
}
