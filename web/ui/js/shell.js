// @ts-check
// What every live page shares: the connection, the pill that says how it is, and small helpers for elements.

import { Live } from './live.js';
import { show } from './state.js';

/** @type {Record<import('./live.js').LinkState, string>} */
const WORDS = {
  connecting: 'Connecting…',
  live: 'Live',
  delayed: 'Delayed',
  reconnecting: 'Reconnecting…',
  offline: 'Offline',
};

/** Opens the page's connection and shows its state in the header. */
export function connect() {
  const nodes = (document.body.dataset.nodes ?? '').split(' ').filter(Boolean);
  const live = new Live(nodes);
  const pill = document.querySelector('[data-role="link"]');
  const update = () => {
    if (pill instanceof HTMLElement) show(pill, live.state, WORDS[live.state]);
  };
  live.addEventListener('state', update);
  update();
  return live;
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
 */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/**
 * The API's answer as JSON, or an error with the reason that it gave.
 * @param {string} path below /api/v1
 */
export async function get(path) {
  const response = await fetch(`/api/v1/${path}`, { headers: { accept: 'application/json' } });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error?.message ?? `the node answered ${response.status}`);
  return body;
}
