// What happened to a job, with reasons, and what its workers logged: the newest first.

import {el, keyed, setAttribute, setText, show} from "./dom.js";
import * as format from "./format.js";

const rowsAtOnce = 100;
const mostEvents = 20_000;

export class Events {
  constructor(parts) {
    this.parts = parts;
    this.events = new Map();  // By sequence.
    this.limit = rowsAtOnce;
    parts.which.addEventListener("change", () => this.again());
    parts.search.addEventListener("input", () => this.again());
    parts.more.addEventListener("click", () => {
      this.limit += rowsAtOnce;
      this.render();
    });
  }

  again() {
    this.limit = rowsAtOnce;
    this.render();
  }

  add(events) {
    for (const event of events) this.events.set(format.num(event.sequence), event);
    for (const sequence of this.events.keys()) {
      if (this.events.size <= mostEvents) break;
      this.events.delete(sequence);
    }
  }

  newest() {
    return [...this.events.values()].reduce((most, event) => Math.max(most, format.num(event.sequence)), 0);
  }

  render() {
    const {which, search, rows, more, empty, table} = this.parts;
    this.renderChoices();
    const wanted = search.value.trim().toLowerCase();
    const matching = [...this.events.values()]
      .filter((event) => isOf(which.value, event) && `${event.actor} ${event.message}`.toLowerCase().includes(wanted))
      .sort((a, b) => format.num(b.sequence) - format.num(a.sequence));
    keyed(rows, matching.slice(0, this.limit), (event) => event.sequence, makeRow, () => {});
    show(more, matching.length > this.limit);
    show(table, matching.length > 0);
    show(empty, matching.length === 0);
    setText(empty, this.events.size > 0 ? "Nothing is like that." : "Nothing has happened yet.");
  }

  // Each worker that has said something can be chosen.
  renderChoices() {
    const {which} = this.parts;
    const actors = [...new Set([...this.events.values()].map((event) => event.actor).filter(isWorker))].sort();
    const known = [...which.options].map((option) => option.value);
    for (const actor of actors) {
      if (!known.includes(`worker:${actor}`)) which.append(el("option", {value: `worker:${actor}`}, `Log of ${actor}`));
    }
  }
}

const isWorker = (actor) => actor !== "client" && actor !== "orchestrator" && Boolean(actor);

function isOf(which, event) {
  if (which === "events") return !isWorker(event.actor);
  if (which === "logs") return isWorker(event.actor);
  if (which === "warnings") return Boolean(event.warning) || event.state === "STATE_FAILED";
  if (which.startsWith("worker:")) return event.actor === which.slice("worker:".length);
  return true;
}

function makeRow(event) {
  const row = el("tr", {role: "row"},
    el("td", {role: "cell", class: "time", title: format.dateTime(event.time)}, format.timeOfDay(event.time)),
    el("td", {role: "cell", class: "actor"}, event.actor ?? ""),
    el("td", {role: "cell", class: "message"},
      event.warning ? el("strong", {class: "warning"}, "Warning: ") : null, event.message ?? ""));
  setAttribute(row, "data-state", format.word(event.state));
  return row;
}
