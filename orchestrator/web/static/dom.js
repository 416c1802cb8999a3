// Building and updating the page. Text from outside only ever becomes text nodes: nothing here reads markup.

// An element: el("td", {class: "number", title: "exact"}, "12", otherElement). A function given as onclick and the like
// becomes a listener; null and false leave an attribute out.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// What is to be shown is set only where it changed: screen readers and selections stay undisturbed.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function show(element, visible) {
  element.hidden = !visible;
}

// A copy of a <template>, and its parts by their data-part.
export function fromTemplate(id) {
  const root = document.getElementById(id).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return {root, parts};
}

// The children of `container` become those of `items`, in their order. An item keeps its element as long as it has its
// key, and with it focus and selection. make(item) -> element; update(element, item).
export function keyed(container, items, keyOf, make, update) {
  const old = new Map();
  for (const child of container.children) old.set(child.dataset.key, child);
  let next = container.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = old.get(key);
    if (element === undefined) {
      element = make(item);
      element.dataset.key = key;
    } else {
      old.delete(key);
    }
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else container.insertBefore(element, next);
  }
  for (const element of old.values()) element.remove();
}

// Runs `work` at most once a frame, however often it is asked for; in a hidden tab not at all until it is seen.
export function onFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

// Says something once to those who do not see the page.
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}
