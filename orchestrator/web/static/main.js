// Puts the page together: which part is seen, and whether it is live.

import {Access} from "./access.js";
import {Cluster} from "./cluster.js";
import {announce, setText, show} from "./dom.js";
import {JobView} from "./job.js";
import {JobsView} from "./jobs.js";
import {WorkersView} from "./workers.js";

const outlet = document.getElementById("outlet");
const cluster = new Cluster();
const access = new Access();
let view = null, shownBefore = false, linkedBefore = false;

function makeView() {
  const [, part, id] = location.hash.split("/");
  if (part === "workers") return new WorkersView(outlet, cluster);
  if (part === "jobs" && id) return new JobView(outlet, cluster, access, decodeURIComponent(id));
  return new JobsView(outlet, cluster);
}

function route() {
  view?.close();
  outlet.replaceChildren();
  view = makeView();
  document.title = `${view.title} · GPipe`;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === (location.hash.startsWith("#/workers") ? "#/workers" : "#/jobs");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  if (shownBefore) outlet.querySelector("h1").focus();
  shownBefore = true;
}

function renderLink() {
  const {connected, lostAt, outdated, readOnly, version, error} = cluster;
  const link = document.getElementById("link");
  link.dataset.live = String(connected);
  setText(link, connected ? "Live" : linkedBefore ? "Reconnecting…" : "Connecting…");
  document.body.dataset.stale = String(!connected && linkedBefore);
  const notice = document.getElementById("notice");
  const words = !connected && linkedBefore
    ? `The orchestrator does not answer since ${lostAt?.toLocaleTimeString([], {hourCycle: "h23"})}. What is shown is from then; the page goes on by itself.`
    : !connected && error ? `The orchestrator does not answer: ${error.message}`
    : outdated ? "The orchestrator has another version now: load this page again."
    : readOnly ? `The orchestrator stores nothing new, and jobs are held: ${readOnly}` : "";
  setText(notice, words);
  show(notice, words !== "");
  if (connected && lostAt) {
    announce("Connected again.");
    cluster.lostAt = null;
  }
  linkedBefore ||= connected;
  setText(document.getElementById("version"), version ? `GPipe ${version}` : "");
}

cluster.addEventListener("link", renderLink);
window.addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  outlet.querySelector("h1").focus();
});
route();
if (!(view instanceof JobView)) cluster.start();
