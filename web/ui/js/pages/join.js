// @ts-check
// A join code was opened: the name is kept, and the room entered.

import { connect, part } from '../shell.js';
import { go } from '../nodes.js';
import * as person from '../person.js';

connect();
const form = /** @type {HTMLFormElement} */ (part(document, 'join'));
const field = /** @type {HTMLInputElement} */ (part(document, 'my-name'));
field.value ||= person.name();
form.addEventListener('submit', (event) => {
  event.preventDefault();
  if (!field.value.trim()) return;
  person.call(field.value);
  go(`/rooms/${encodeURIComponent(form.dataset.room ?? '')}`);
});
