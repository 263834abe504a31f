// @ts-check
// Which node this page is on, and which it may turn to. One for each page, like its clock: the live connection says when
// to leave, and everything that asks a node or links to one goes where the connection goes.

import { pack } from './keep.js';

/** Addresses remembered; further ones that a node tells of are not. */
const MAX_KNOWN = 64;
/** How long an answer may take. */
const ANSWER_WITHIN_MS = 8000;

/**
 * @typedef {object} Place a node, and how this page reaches it
 * @property {string} node name; empty while nobody has told it
 * @property {string} base its origin, without a slash at the end
 *
 * @typedef {object} Told a node as the cluster tells of it
 * @property {string} node
 * @property {string} http
 * @property {string} [state]
 */

/** @type {Place} */
let here = { node: '', base: location.origin };
/** @type {Map<string, string>} names of all nodes ever told of, by address */
const known = new Map([[location.origin, '']]);
/** @type {string[]} addresses of the other nodes that were alive when this page last heard of them */
let alive = [];
/** @type {string[]} addresses still to be tried, the next one first */
let queue = [];
let leaving = new AbortController();

/** Tells of every move: `move`. */
export const moves = new EventTarget();

/** Where this page is, or is going. */
export function at() {
  return here;
}

/**
 * The nodes that the page came with; the first is the one that served it, whatever address that has for others.
 * @param {Told[]} told
 */
export function begin(told) {
  const [own, ...others] = told;
  if (own) settle(own.node);
  alive = usable(others);
}

/**
 * What a node says of the cluster once the page is on it.
 * @param {string} me its name
 * @param {Told[]} nodes
 */
export function learn(me, nodes) {
  settle(me);
  const others = nodes.filter(({ node, state }) => node !== me && state === 'alive');
  alive = usable(others).filter((base) => base !== here.base);
  queue = [];
}

/**
 * The node is going away and names those to turn to.
 * @param {string[]} sockets `ws://127.0.0.1:4001/api/v1/live`
 */
export function prefer(sockets) {
  const bases = sockets.map((url) => new URL(url).origin.replace(/^ws/, 'http'));
  queue = usable(bases.map((base) => ({ node: known.get(base) ?? '', http: base })));
}

/** Leaves the node, and whatever it was asked; says where to try next. Every known node has its turn. */
export function leave() {
  if (queue.length === 0) {
    const others = shuffle(alive.filter((base) => base !== here.base));
    queue = [...new Set([...others, here.base, ...known.keys()])];
  }
  const base = /** @type {string} */ (queue.shift());
  here = { node: known.get(base) ?? '', base };
  leaving.abort(new Error('the page moves to another node'));
  leaving = new AbortController();
  moves.dispatchEvent(new Event('move'));
  return here;
}

/**
 * An address on the node that the page is on.
 * @param {string} path
 */
export function url(path) {
  return here.base + path;
}

/** Whether an origin is a node's. @param {string} origin */
export function isNode(origin) {
  return known.has(origin);
}

/**
 * Fetches from the node that the page is on; fails when the page leaves it, or when it takes too long.
 * @param {string} path
 * @param {RequestInit} [options]
 */
export function ask(path, options = {}) {
  const signal = AbortSignal.any([leaving.signal, AbortSignal.timeout(ANSWER_WITHIN_MS)]);
  return fetch(url(path), { ...options, signal });
}

/**
 * Opens a page of the node that this page is on.
 * @param {string} path
 */
export function go(path) {
  if (here.base === location.origin && path === location.pathname) location.reload();
  else location.assign(here.base === location.origin ? url(path) : pack(url(path)));
}

/** @param {string} name of the node that is at `here.base` */
function settle(name) {
  const moved = name !== here.node;
  here = { node: name, base: here.base };
  known.set(here.base, name);
  if (moved) moves.dispatchEvent(new Event('move'));
}

/**
 * The addresses of nodes that this page may use, remembered; a page of https cannot use the plain ones.
 * @param {Told[]} told
 */
function usable(told) {
  const bases = [];
  for (const { node, http } of told) {
    const base = http.replace(/\/+$/, '');
    if (location.protocol === 'https:' && !base.startsWith('https:')) continue;
    if (!known.has(base) && known.size >= MAX_KNOWN) continue;
    // One name may stand for many nodes: that of the one in front of them says nothing.
    if (node || !known.has(base)) known.set(base, base === here.base ? here.node : node);
    bases.push(base);
  }
  return bases;
}

/**
 * In an order of its own, so that the pages of a dead node do not all turn to the same one.
 * @param {string[]} list
 */
function shuffle(list) {
  for (let i = list.length - 1; i > 0; i -= 1) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}
