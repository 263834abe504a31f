// @ts-check
// Lines to copy.

/** How long a button says that it copied. */
const COPIED_MS = 2000;

/** Shows the button beside each line, and lets it copy. */
export function offerCopies() {
  for (const button of document.querySelectorAll('[data-role="copy"]')) {
    if (!(button instanceof HTMLButtonElement)) continue;
    const code = button.parentElement?.querySelector('code');
    if (!code) continue;
    button.hidden = false;
    button.addEventListener('click', async () => {
      button.textContent = (await copy(code)) ? 'Copied' : 'Selected';
      setTimeout(() => {
        button.textContent = 'Copy';
      }, COPIED_MS);
    });
  }
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
