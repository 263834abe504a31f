// @ts-check
// Waits for the first sensor.

import { offerCopies } from '../copy.js';
import { go } from '../nodes.js';
import { connect, get, part, write } from '../shell.js';

/** Should the node's news be missed, the page asks this often. */
const ASK_MS = 2000;

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
offerCopies();
