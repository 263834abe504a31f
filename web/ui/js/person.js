// @ts-check
// Who looks at this page: an id that this browser drew once, and the name that its user goes by in rooms. Both stay in the
// browser, so that whoever comes back, in another tab or through another node's connection, is the same person.

import { keep, read } from './keep.js';

const ID = 'person';
const NAME = 'name';
/** Characters of an id, drawn at random. */
const ID_CHARS = 20;
const LETTERS = '0123456789abcdefghijklmnopqrstuvwxyz';

/** The id of whoever uses this browser. */
export function id() {
  const held = read(ID);
  if (/^[a-z0-9]{1,128}$/.test(held)) return held;
  const drawn = [...crypto.getRandomValues(new Uint8Array(ID_CHARS))].map((byte) => LETTERS[byte % 36]).join('');
  keep(ID, drawn);
  return drawn;
}

/** What they are called; empty while nobody has said so. */
export function name() {
  return read(NAME);
}

/** @param {string} text */
export function call(text) {
  keep(NAME, text.trim());
}
