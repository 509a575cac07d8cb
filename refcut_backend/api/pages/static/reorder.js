// @ts-check
/** Dragging a reference to another place among those of its label. The buttons of its card do the same. */

const EDGE_PX = 70;
const SCROLL_PX = 12;
const SCROLL_MS = 16;

/** Which reference a card shows: two cards of one annotation have one place. @param {HTMLElement} card */
const key = ({ dataset }) => `${dataset.task} ${dataset.annotation}`;

/** Cards that have a place, in the order of the page. @param {HTMLElement} list @returns {HTMLElement[]} */
const cardsOf = (list) => [...list.querySelectorAll("li")].filter((card) => card.dataset.place);

/** The place of a card where it stands now. @param {HTMLElement} list @param {HTMLElement} card */
function placeOf(list, card) {
  const cards = cardsOf(list);
  const before = cards.slice(0, cards.indexOf(card)).filter((other) => key(other) !== key(card));
  return new Set(before.map(key)).size + 1;
}

/** Whether a pointer has passed the middle of a card, so that the dragged one belongs on its other side.
 * @param {HTMLElement} card the dragged one @param {HTMLElement} over @param {number} x @param {number} y */
function isPast(card, over, x, y) {
  const from = card.getBoundingClientRect();
  const to = over.getBoundingClientRect();
  const isBeside = Math.abs(from.top - to.top) < 1;
  const beyond = isBeside ? x - (to.left + to.right) / 2 : y - (to.top + to.bottom) / 2;
  return comesAfter(card, over) ? beyond > 0 : beyond < 0;
}

/** @param {HTMLElement} card @param {HTMLElement} other */
function comesAfter(card, other) {
  return Boolean(card.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING);
}

/**
 * Moves a card with a pointer until it is released. Escape puts the card back.
 * @param {HTMLElement} list
 * @param {HTMLElement} card
 * @param {PointerEvent} pressed
 * @param {(card: HTMLElement, place: number) => void} move
 */
function drag(list, card, pressed, move) {
  const next = card.nextElementSibling;
  const first = placeOf(list, card);
  const over = new AbortController();
  let { clientX: x, clientY: y } = pressed;

  const arrange = () => {
    const target = document.elementFromPoint(x, y)?.closest("li");
    if (!target || target === card || !cardsOf(list).includes(target) || !isPast(card, target, x, y)) return;
    if (comesAfter(card, target)) target.after(card);
    else target.before(card);
  };
  const scrolling = setInterval(() => {
    const by = y < EDGE_PX ? -SCROLL_PX : y > innerHeight - EDGE_PX ? SCROLL_PX : 0;
    if (!by) return;
    scrollBy(0, by);
    arrange();
  }, SCROLL_MS);
  const end = () => {
    over.abort();
    clearInterval(scrolling);
    card.classList.remove("dragged");
  };
  const putBack = () => {
    end();
    list.insertBefore(card, next);
  };

  // Of the list: a card that is moved within the page would lose the pointer.
  list.setPointerCapture(pressed.pointerId);
  card.classList.add("dragged");
  const { signal } = over;
  list.addEventListener("pointermove", (event) => {
    ({ clientX: x, clientY: y } = event);
    arrange();
  }, { signal });
  list.addEventListener("pointerup", () => {
    end();
    const place = placeOf(list, card);
    if (place !== first) move(card, place);
  }, { signal });
  list.addEventListener("lostpointercapture", putBack, { signal });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") putBack();
  }, { signal });
}

/** Makes the cards with a handle ones that can be dragged. @param {(card: HTMLElement, place: number) => void} move */
export function watchDragging(move) {
  document.addEventListener("pointerdown", (event) => {
    const handle = event.target instanceof Element ? event.target.closest(".handle") : null;
    const card = handle?.closest("li");
    if (!card?.parentElement || event.button) return;
    event.preventDefault();
    drag(card.parentElement, card, event, move);
  });
}
