// @ts-check
// The star that makes a sensor or a room a favourite.

import * as favourites from '../favourites.js';
import { element } from '../shell.js';

/**
 * @param {string} what `sensor/…` or `room/…`
 * @param {string} name as people know it
 * @param {() => void} changed
 */
export function star(what, name, changed) {
  const button = element('button', { class: 'star', type: 'button' });
  const show = () => {
    const is = favourites.has(what);
    button.setAttribute('aria-pressed', String(is));
    button.setAttribute('aria-label', `Favourite: ${name}`);
    button.title = is ? 'No longer a favourite' : 'Make it a favourite: it stands first';
    button.textContent = is ? '★' : '☆';
  };
  button.addEventListener('click', () => {
    favourites.toggle(what);
    show();
    changed();
  });
  show();
  return button;
}
