// @ts-check
// One animation loop for all charts of the page. Charts out of sight cost nothing, and with reduced motion they
// step twice a second instead of gliding.

/** Steps with prefers-reduced-motion. */
const CALM_MS = 500;

/**
 * @typedef {object} Drawn
 * @property {HTMLElement} host what must be in sight
 * @property {(now: number) => void} draw
 */

const calm = matchMedia('(prefers-reduced-motion: reduce)');
/** @type {Map<Element, Drawn>} */
const all = new Map();
/** @type {Set<Drawn>} */
const seen = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const drawn = all.get(entry.target);
    if (!drawn) continue;
    if (entry.isIntersecting) seen.add(drawn);
    else seen.delete(drawn);
  }
  wake();
});
let frame = 0;
let last = 0;

function wake() {
  if (frame === 0 && seen.size > 0) frame = requestAnimationFrame(step);
}

/** @param {number} now */
function step(now) {
  frame = 0;
  if (!calm.matches || now - last >= CALM_MS) {
    last = now;
    for (const drawn of seen) drawn.draw(now);
  }
  wake();
}

/** @param {Drawn} drawn is drawn from now on whenever it is in sight */
export function add(drawn) {
  all.set(drawn.host, drawn);
  sight.observe(drawn.host);
}

/** @param {Drawn} drawn */
export function remove(drawn) {
  all.delete(drawn.host);
  seen.delete(drawn);
  sight.unobserve(drawn.host);
}
