// @ts-check
// Light, dark, or as the system says; the choice is kept in this browser. Loaded before the page is drawn, so that
// it never flashes in the other colours. A classic script, since a module would run too late.

(() => {
  const KEY = 'sensorium.theme';
  const ORDER = ['auto', 'light', 'dark'];

  const stored = () => {
    try {
      const value = localStorage.getItem(KEY);
      return value && ORDER.includes(value) ? value : 'auto';
    } catch {
      return 'auto'; // Storage may be blocked; the system's choice is then good enough.
    }
  };

  /** @param {string} theme */
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent('sensorium:theme'));
  };

  apply(stored());
  // A choice made at another node's address came along with the link.
  document.addEventListener('sensorium:kept', () => apply(stored()));

  document.addEventListener('DOMContentLoaded', () => {
    const button = document.querySelector('[data-role="theme"]');
    if (!(button instanceof HTMLButtonElement)) return;
    const label = () => {
      const word = document.createElement('span');
      word.className = 'wide';
      word.textContent = 'Theme:\u00a0';
      button.replaceChildren(word, stored());
      button.hidden = false;
    };
    button.addEventListener('click', () => {
      const next = ORDER[(ORDER.indexOf(stored()) + 1) % ORDER.length];
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // Without storage the choice lasts as long as the page.
      }
      apply(next);
      label();
    });
    label();
  });
})();
