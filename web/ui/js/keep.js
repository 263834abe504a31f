// @ts-check
// What this browser keeps for its user: their name, favourites, choices. A browser keeps it by address, and another node is
// another address: so it travels along in the fragment of a link that leads there, which no server ever sees.

const PREFIX = 'sensorium.';
/** When something was last changed here, ms since 1970: of two browsers' memories the later one counts. */
const CHANGED = `${PREFIX}changed`;
/** The fragment that carries it. */
const FRAGMENT = '#sensorium=';
/** What is longer does not travel: addresses have an end. */
const MAX_FRAGMENT = 8000;

/** For browsers that keep nothing: until the page is left. */
const held = new Map();

/** @returns {Storage | null} where the browser allows it */
function storage() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

/** @param {string} key without the prefix */
export function read(key) {
  return storage()?.getItem(PREFIX + key) ?? held.get(PREFIX + key) ?? '';
}

/**
 * @param {string} key
 * @param {string} value empty to forget it
 */
export function keep(key, value) {
  set(PREFIX + key, value);
  set(CHANGED, String(Date.now()));
}

/**
 * What is kept under `key` as JSON, or `otherwise` where nothing readable is.
 * @template T
 * @param {string} key
 * @param {T} otherwise
 * @returns {T}
 */
export function readJson(key, otherwise) {
  try {
    return JSON.parse(read(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/**
 * @param {string} name with the prefix
 * @param {string} value
 */
function set(name, value) {
  if (value) held.set(name, value);
  else held.delete(name);
  try {
    if (value) storage()?.setItem(name, value);
    else storage()?.removeItem(name);
  } catch {
    // It is kept for this page.
  }
}

/** All that is kept, by name with the prefix. */
function all() {
  const kept = new Map(held);
  const store = storage();
  for (let i = 0; i < (store?.length ?? 0); i += 1) {
    const name = store?.key(i) ?? '';
    if (name.startsWith(PREFIX)) kept.set(name, store?.getItem(name) ?? '');
  }
  return kept;
}

/**
 * The address with what is kept, for a page of another origin.
 * @param {string} url
 */
export function pack(url) {
  const kept = all();
  if (kept.size === 0 || url.includes('#')) return url;
  const fragment = FRAGMENT + encodeURIComponent(JSON.stringify([...kept]));
  return fragment.length > MAX_FRAGMENT ? url : url + fragment;
}

/** Takes up what came with this page's address, unless this browser knows better, and cleans the address. */
function unpack() {
  if (!location.hash.startsWith(FRAGMENT)) return;
  try {
    const kept = new Map(JSON.parse(decodeURIComponent(location.hash.slice(FRAGMENT.length))));
    if (Number(kept.get(CHANGED) ?? 0) >= Number(storage()?.getItem(CHANGED) ?? 0)) {
      for (const [name, value] of kept) {
        if (typeof name === 'string' && name.startsWith(PREFIX) && typeof value === 'string') set(name, value);
      }
    }
  } catch {
    // A fragment that somebody made up; there is nothing to keep.
  }
  history.replaceState(history.state, '', location.pathname + location.search);
  // The theme was chosen before this script ran.
  document.dispatchEvent(new CustomEvent('sensorium:kept'));
}

unpack();
