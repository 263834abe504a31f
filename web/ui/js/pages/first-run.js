// @ts-check
// Waits for the first sensor, and copies lines.

import { go } from '../nodes.js';
import { connect, get, part, write } from '../shell.js';

/** Should the node's news be missed, the page asks this often. */
const ASK_MS = 2000;
/** How long a button says that it copied. */
const COPIED_MS = 2000;

const live = connect();
const waiting = part(document, 'waiting');
let moving = false;

async function look() {
  if (moving) return;
  try {
    const { sensors } = await get('sensors?limit=1');
    if (sensors.length === 0 || moving) return;
    moving = true;
    write(waiting, 'Here it is.');
    go('/');
  } catch {
    // The node is away; the pill says so, and the next look may find it.
  }
}

live.addEventListener('sensor', look);
live.addEventListener('state', look);
setInterval(look, ASK_MS);

for (const button of document.querySelectorAll('[data-role="copy"]')) {
  if (!(button instanceof HTMLButtonElement)) continue;
  const code = button.parentElement?.querySelector('code');
  if (!code) continue;
  button.hidden = false;
  button.addEventListener('click', async () => {
    write(button, (await copy(code)) ? 'Copied' : 'Selected');
    setTimeout(() => write(button, 'Copy'), COPIED_MS);
  });
}

/**
 * Copies the element's text; where the browser forbids that (plain HTTP on another host), selects it.
 * @param {HTMLElement} code
 */
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent ?? '');
    return true;
  } catch {
    getSelection()?.selectAllChildren(code);
    return false;
  }
}
