// @ts-check
// A list of thousands of cards of which only those in sight are there: the others are room that is left for them. Cards of
// unequal height stand close, each in the column that ends highest.

/** Cards this far outside the window are kept ready. */
const MARGIN = 400;
/** No card is higher, in CSS pixels: how far back one that reaches into sight may begin. */
const MAX_HEIGHT = 2000;
/** A card is at least so wide, unless the window is narrower; as in the style sheet. */
const MIN_WIDTH = 368;
const GAP = 16;

/**
 * @typedef {object} Shelved
 * @property {number} height CSS pixels
 * @property {() => HTMLElement} open it comes into sight: gives its element
 * @property {() => void} close it left
 */

/** @template {Shelved} T */
export class Shelf {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {T[]} all, in order */
    this.cards = [];
    /** @type {{ card: T, index: number, top: number, left: number }[]} by `top` */
    this.places = [];
    /** @type {Map<T, HTMLElement>} those in sight */
    this.shown = new Map();
    this.width = 0;
    this.cardWidth = 0;
    this.frame = 0;
    addEventListener('scroll', () => this.#soon(), { passive: true });
    addEventListener('resize', () => this.#soon());
    new ResizeObserver(([entry]) => {
      if (entry.contentRect.width === this.width) return;
      this.width = entry.contentRect.width;
      this.arrange(this.cards);
    }).observe(root);
  }

  /**
   * Puts these cards into this order.
   * @param {T[]} cards
   */
  arrange(cards) {
    this.cards = cards;
    if (this.width === 0) return;
    const columns = Math.max(1, Math.floor((this.width + GAP) / (MIN_WIDTH + GAP)));
    this.cardWidth = (this.width - GAP * (columns - 1)) / columns;
    const ends = new Array(columns).fill(0);
    this.places = cards.map((card, index) => {
      const top = Math.min(...ends);
      const column = ends.indexOf(top);
      ends[column] = top + card.height + GAP;
      return { card, index, top, left: column * (this.cardWidth + GAP) };
    });
    this.root.style.height = `${Math.max(...ends, GAP) - GAP}px`;
    this.show();
  }

  #soon() {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.show());
  }

  /** Opens what is in sight and closes what is not. */
  show() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const from = -this.root.getBoundingClientRect().top - MARGIN;
    const to = from + innerHeight + 2 * MARGIN;
    const before = new Map(this.shown);
    this.shown.clear();
    /** @type {{ index: number, element: HTMLElement }[]} */
    const wanted = [];
    const focused = document.activeElement;
    // Tops ascend, since each card goes where the list ends highest.
    for (let i = this.#firstFrom(from - MAX_HEIGHT); i < this.places.length && this.places[i].top < to; i += 1) {
      const { card, index, top, left } = this.places[i];
      if (top + card.height < from) continue;
      const element = card.open();
      element.style.transform = `translate(${left}px, ${top}px)`;
      element.style.width = `${this.cardWidth}px`;
      element.setAttribute('aria-setsize', String(this.places.length));
      element.setAttribute('aria-posinset', String(index + 1));
      this.shown.set(card, element);
      before.delete(card);
      wanted.push({ index, element });
    }
    for (const [card, element] of before) {
      // What has the focus stays, so that it is not lost by scrolling.
      const place = element.contains(focused) ? this.places.find((one) => one.card === card) : undefined;
      if (place) {
        this.shown.set(card, element);
        wanted.push({ index: place.index, element });
      } else {
        element.remove();
        card.close();
      }
    }
    // In the order of the list, for those who go through it by keyboard; what stands where it belongs is not moved.
    wanted.sort((a, b) => a.index - b.index);
    wanted.forEach(({ element }, i) => {
      if (this.root.children[i] !== element) this.root.insertBefore(element, this.root.children[i] ?? null);
    });
    // An element that is moved loses the focus.
    if (focused instanceof HTMLElement && focused.isConnected && document.activeElement !== focused) {
      focused.focus({ preventScroll: true });
    }
  }

  /** @param {number} top the first place at or below it */
  #firstFrom(top) {
    let low = 0;
    let high = this.places.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.places[middle].top < top) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
