// @ts-check
// The cluster page: a row for each node and a line for each thing that happened, as told by the node that the page is on.

import * as clock from '../clock.js';
import { offerCopies } from '../copy.js';
import { bytes, duration, moment, number, whole } from '../format.js';
import * as nodes from '../nodes.js';
import { connect, element, part, write } from '../shell.js';
import { show } from '../state.js';

/** How often "for 3 min" is written anew. */
const TICK_MS = 1000;

/**
 * @typedef {object} Member a node, as `GET cluster` has it
 * @property {string} node
 * @property {'alive' | 'suspect' | 'down' | 'left'} state
 * @property {number} since_ts
 * @property {string} http
 * @property {number} sensors
 * @property {number} devices
 * @property {number} viewers
 * @property {number} samples_per_second
 * @property {number} memory_bytes
 * @property {number} disk_bytes
 * @property {number | null} lag_ms
 *
 * @typedef {object} Happening
 * @property {number} ts
 * @property {string} node
 * @property {'joined' | 'suspected' | 'recovered' | 'died' | 'left' | 'refused' | 'clock_ahead' | 'caught_up'} event
 * @property {string} text
 *
 * @typedef {object} Cluster
 * @property {string} me who tells it
 * @property {number} partitions
 * @property {number} replicas
 * @property {Member[]} nodes
 * @property {Happening[]} [events] the oldest first; left out while nothing was added
 */

/** @type {Record<Member['state'], string>} */
const STATES = { alive: 'Alive', suspect: 'Suspect', down: 'Down', left: 'Left' };
/** @type {Record<Member['state'], string>} */
const MEANINGS = {
  alive: 'It answers.',
  suspect: 'It did not answer; if it stays silent it counts as down.',
  down: 'It does not answer: killed, hung, or cut off.',
  left: 'It was stopped in order.',
};

const live = connect();
const table = part(document, 'nodes');
const body = part(document, 'rows');
const fields = [...table.querySelectorAll('th[data-field]')].map((head) => ({
  field: /** @type {HTMLElement} */ (head).dataset.field ?? '',
  label: head.textContent ?? '',
}));

/** @type {Map<string, Row>} by node */
const rows = new Map();
/** @type {Cluster} */
let cluster = JSON.parse(table.dataset.cluster ?? '{}');

class Row {
  /** @param {string} name */
  constructor(name) {
    // An address of its own, wherever this page is.
    this.link = /** @type {HTMLAnchorElement} */ (element('a', { 'data-stays': '' }, [name]));
    this.badge = element('span', { class: 'badge', hidden: '' }, ['this page']);
    this.address = element('span', { class: 'address' });
    this.pill = element('span', { class: 'pill', 'data-role': 'state' });
    this.since = element('span', { class: 'since' });
    /** @type {Map<string, HTMLElement>} */
    this.cells = new Map();
    this.root = element('tr', { role: 'row', 'data-node': name }, [
      element('th', { scope: 'row', role: 'rowheader' }, [element('span', { class: 'who' }, [this.link, this.badge]), this.address]),
      element('td', { class: 'state', role: 'cell' }, [this.pill, this.since]),
    ]);
    for (const { field, label } of fields) {
      const cell = element('td', { class: 'figure', role: 'cell', 'data-field': field, 'data-label': label });
      this.cells.set(field, cell);
      this.root.append(cell);
    }
  }

  /**
   * @param {Member} member
   * @param {string} me who tells it
   */
  update(member, me) {
    const { node, state, http } = member;
    const here = node === nodes.at().node;
    const gone = state === 'down' || state === 'left';
    const page = `${here ? nodes.at().base : http}/cluster`;
    if (gone) this.link.removeAttribute('href');
    else if (this.link.href !== page) this.link.href = page;
    write(this.address, http.replace(/^\w+:\/\//, ''));
    this.badge.hidden = !here;
    this.root.dataset.state = state;
    show(this.pill, state, STATES[state]);
    this.pill.title = MEANINGS[state];
    const seconds = Math.max(0, Math.round((clock.now() - member.since_ts) / 1000));
    write(this.since, `for ${duration(seconds * 1000)}`);
    for (const [field, cell] of this.cells) {
      // What a node that is gone last said of itself is no longer so.
      write(cell, gone && field !== 'lag_ms' ? '–' : figure(field, member, me));
    }
  }
}

/**
 * @param {string} field
 * @param {Member} member
 * @param {string} me
 */
function figure(field, member, me) {
  switch (field) {
    case 'memory_bytes':
      return bytes(member.memory_bytes);
    case 'disk_bytes':
      return bytes(member.disk_bytes);
    case 'lag_ms':
      if (member.node === me || member.lag_ms === null) return '–';
      return member.lag_ms < 1000 ? `${number(member.lag_ms, member.lag_ms < 10 ? 1 : 0)} ms` : duration(member.lag_ms);
    default:
      return whole(/** @type {Record<string, any>} */ (member)[field] ?? 0);
  }
}

/** Shows what is known: the rows stay where they are, so that neither eye nor focus loses them. */
function draw() {
  const { me, nodes: members } = cluster;
  for (const member of members) {
    const row = rows.get(member.node) ?? new Row(member.node);
    rows.set(member.node, row);
    row.update(member, me);
  }
  const listed = members.map(({ node }) => node);
  for (const [name, row] of rows) {
    if (listed.includes(name)) continue;
    row.root.remove();
    rows.delete(name);
  }
  listed.forEach((name, index) => {
    const { root } = /** @type {Row} */ (rows.get(name));
    if (body.children[index] !== root) body.insertBefore(root, body.children[index] ?? null);
  });

  const alive = members.filter(({ state }) => state === 'alive' || state === 'suspect');
  const sum = (/** @type {(member: Member) => number} */ of) => whole(alive.reduce((total, member) => total + of(member), 0));
  const answering = members.filter(({ state }) => state === 'alive').length;
  write(part(document, 'total-alive'), `${answering} of ${members.length}`);
  write(part(document, 'total-rate'), sum((member) => member.samples_per_second));
  write(part(document, 'total-devices'), sum((member) => member.devices));
  write(part(document, 'total-viewers'), sum((member) => member.viewers));
  const counts = /** @type {Member['state'][]} */ (Object.keys(STATES))
    .map((state) => ({ state, count: members.filter((member) => member.state === state).length }))
    .filter(({ count }) => count > 0)
    .map(({ state, count }) => `${count} ${STATES[state].toLowerCase()}`);
  write(part(document, 'summary'), `${members.length} ${members.length === 1 ? 'node' : 'nodes'}: ${counts.join(', ')}`);
  part(document, 'second').hidden = members.length > 1;
}

/** @param {Happening[]} events the oldest first */
function log(events) {
  const list = part(document, 'events');
  write(part(document, 'witness'), `as node ${cluster.me} saw it, the newest first`);
  if (events.length === 0) {
    list.replaceChildren(element('li', { class: 'quiet-line' }, ['Nothing yet: no other node has come or gone.']));
    return;
  }
  const now = clock.now();
  const lines = events.map(({ ts, node, event, text }) =>
    element('li', { 'data-event': event }, [
      element('time', { datetime: new Date(ts).toISOString() }, [moment(ts, now)]),
      element('span', { class: 'what' }, [element('strong', {}, [node]), ` ${text}`]),
    ]),
  );
  list.replaceChildren(...lines.reverse());
}

draw();
log(cluster.events ?? []);
offerCopies();
live.watchCluster();
live.addEventListener('cluster', (event) => {
  cluster = /** @type {CustomEvent} */ (event).detail;
  draw();
  if (cluster.events) log(cluster.events);
});
nodes.moves.addEventListener('move', draw);
setInterval(draw, TICK_MS);

/** For tests and curious people. */
Object.assign(window, { sensorium: { live, nodes } });
