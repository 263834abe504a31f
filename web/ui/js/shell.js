// @ts-check
// What every live page shares: the connection, the words that say how it is and where it leads, links that follow it,
// and small helpers for elements.

import { pack } from './keep.js';
import { Live } from './live.js';
import * as nodes from './nodes.js';
import { show } from './state.js';

/** @type {Record<import('./live.js').LinkState, (node: string) => string>} */
const WORDS = {
  connecting: () => 'Connecting…',
  live: () => 'Live',
  delayed: () => 'Delayed',
  reconnecting: (node) => (node ? `Reconnecting to node ${node}…` : 'Reconnecting…'),
  offline: () => 'Offline',
};

/** Opens the page's connection, and shows its state in the header and its node in the footer. */
export function connect() {
  nodes.begin(JSON.parse(document.body.dataset.nodes ?? '[]'));
  const live = new Live();
  const pill = document.querySelector('[data-role="link"]');
  const name = document.querySelector('[data-role="node"]');
  const update = () => {
    const { node, base } = nodes.at();
    if (pill instanceof HTMLElement) {
      show(pill, live.state, WORDS[live.state](node));
      const on = live.state === 'live' || live.state === 'delayed';
      pill.title = `${on ? 'On' : 'Trying'} node ${node || base}`;
    }
    if (name && node) write(name, node);
  };
  live.addEventListener('state', update);
  nodes.moves.addEventListener('move', update);
  update();
  followWithLinks();
  followBattery(live);
  return live;
}

/**
 * Where the browser says how its battery is, the node knows: it has devices send less closely to a page that had better
 * sleep. Pages on a machine without a battery say nothing.
 * @param {Live} live
 */
async function followBattery(live) {
  const battery = await /** @type {any} */ (navigator).getBattery?.().catch(() => null);
  if (!battery) return;
  const tell = () => live.battery(battery);
  if (!battery.charging || battery.level < 1) tell();
  battery.addEventListener('levelchange', tell);
  battery.addEventListener('chargingchange', tell);
}

/** Links to pages and data lead to the node that the page is on; those marked `data-stays` to where they say. */
function followWithLinks() {
  /** @param {HTMLAnchorElement} link */
  const lead = (link) => {
    if (link.dataset.stays !== undefined || link.getAttribute('href')?.startsWith('#')) return;
    const { origin, pathname, search, hash } = new URL(link.href);
    const { base } = nodes.at();
    if (origin !== base && nodes.isNode(origin)) link.href = base + pathname + search + hash;
  };
  nodes.moves.addEventListener('move', () => {
    for (const link of document.querySelectorAll('a[href]')) lead(/** @type {HTMLAnchorElement} */ (link));
  });
  // Those that came later are turned when somebody turns to them.
  for (const event of ['pointerover', 'focusin', 'click', 'auxclick']) {
    document.addEventListener(
      event,
      ({ target }) => {
        const link = target instanceof Element ? target.closest('a[href]') : null;
        if (!(link instanceof HTMLAnchorElement)) return;
        lead(link);
        // What the browser keeps for its user comes along to another node's address.
        if (event.endsWith('click') && link.origin !== location.origin && nodes.isNode(link.origin)) carry(link);
      },
      { capture: true },
    );
  }
}

/**
 * Adds what the browser keeps to a link that is being followed; afterwards it is as it was.
 * @param {HTMLAnchorElement} link
 */
function carry(link) {
  const href = link.href;
  link.href = pack(href);
  setTimeout(() => {
    link.href = href;
  });
}

/**
 * The element with this role inside `root`; a page that lacks it is broken, so this throws.
 * @param {ParentNode} root
 * @param {string} role
 * @returns {HTMLElement}
 */
export function part(root, role) {
  const found = root.querySelector(`[data-role="${role}"]`);
  if (!(found instanceof HTMLElement)) throw new Error(`the page has no ${role}`);
  return found;
}

/**
 * A new element.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} [children]
 */
export function element(tag, attributes = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * Writes text only when it changed: an unchanged page costs no layout.
 * @param {Element} target
 * @param {string} text
 * @returns {boolean} whether it changed
 */
export function write(target, text) {
  if (target.textContent === text) return false;
  target.textContent = text;
  return true;
}

/** An answer that is an error, with the reason that the node gave. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * The API's answer as JSON, or an error with the reason that it gave.
 * @param {string} path below /api/v1
 */
export function get(path) {
  return ask(path, { headers: { accept: 'application/json' } });
}

/**
 * Changes something, and gives the answer as `get` does.
 * @param {string} method
 * @param {string} path below /api/v1
 * @param {object} [body]
 */
export function send(method, path, body) {
  const headers = { accept: 'application/json', 'content-type': 'application/json' };
  return ask(path, { method, headers, body: body && JSON.stringify(body) });
}

/**
 * @param {string} path
 * @param {RequestInit} options
 */
async function ask(path, options) {
  const response = await nodes.ask(`/api/v1/${path}`, options);
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, body?.error?.message ?? `the node answered ${response.status}`);
  return body;
}
