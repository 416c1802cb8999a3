// A canvas that is sharp on every screen, as wide as its place, and painted again when that or the theme changes.

import {onFrame} from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

export class Canvas {
  // paint(context, width, height, colour): sizes in CSS pixels; colour("--name") is that of the theme. `leastWidth()`
  // may ask for more than the place has, which then scrolls.
  constructor(element, height, paint, leastWidth = () => 0) {
    Object.assign(this, {element, height, paint, leastWidth});
    this.draw = onFrame(() => this.paintNow());
    this.observer = new ResizeObserver(this.draw);
    this.observer.observe(element.parentElement);
    dark.addEventListener("change", this.draw);
  }

  close() {
    this.observer.disconnect();
    dark.removeEventListener("change", this.draw);
  }

  paintNow() {
    const width = Math.max(this.element.parentElement.clientWidth, Math.ceil(this.leastWidth()));
    if (width === 0) return;
    const scale = window.devicePixelRatio || 1;
    this.element.style.width = `${width}px`;
    this.element.style.height = `${this.height}px`;
    this.element.width = Math.round(width * scale);
    this.element.height = Math.round(this.height * scale);
    const context = this.element.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.element), colours = new Map();
    context.font = `12px ${style.fontFamily}`;
    this.context = context;
    this.colour = (name) => {
      if (!colours.has(name)) colours.set(name, style.getPropertyValue(name).trim());
      return colours.get(name);
    };
    this.paint(context, width, this.height, this.colour);
  }
}

// What rows are named by has so much room on their left.
export const labelWidth = (width) => (width < 560 ? 62 : 96);

// What stands for time in which nothing is computed: thin lines on the ground.
export function hatching(context, colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const lines = tile.getContext("2d");
  lines.strokeStyle = colour;
  lines.lineWidth = 1;
  lines.beginPath();
  for (const from of [-8, 0, 8]) {
    lines.moveTo(from, 8);
    lines.lineTo(from + 8, 0);
  }
  lines.stroke();
  return context.createPattern(tile, "repeat");
}

// Round numbers for an axis from `low` to `high`, about `wanted` of them.
export function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const all = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; ++at) all.push(at * step + 0);  // Not -0.
  return all;
}
