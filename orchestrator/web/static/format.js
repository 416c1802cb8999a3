// Values as a person reads them. The API's int64 are strings in JSON, and what is zero is left out.

export const num = (value) => (value === undefined || value === null ? 0 : Number(value));

const nothing = "–";
const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value) {
  let size = num(value), unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    ++unit;
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 2 : 1)} ${units[unit]}`;
}

export const count = (value) => num(value).toLocaleString("en-US");

export function percent(share, digits = 0) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(digits)}%` : nothing;
}

export function loss(value) {
  if (value === undefined || value === null) return nothing;
  const number = Number(value);
  if (!Number.isFinite(number)) return String(value);
  return Math.abs(number) >= 1e-3 && Math.abs(number) < 1e5 || number === 0 ? number.toPrecision(4) : number.toExponential(3);
}

export function rate(perSecond) {
  const value = num(perSecond);
  if (!(value > 0)) return nothing;
  return value >= 100 ? count(Math.round(value)) : value.toPrecision(3);
}

// `3.42 ms`, `1.5 s`, then as a clock.
export function seconds(value) {
  if (!Number.isFinite(value)) return nothing;
  if (value === 0) return "0 s";
  if (value < 1e-3) return `${(value * 1e6).toPrecision(3)} µs`;
  if (value < 1) return `${(value * 1e3).toPrecision(3)} ms`;
  return value < 60 ? `${value.toPrecision(3)} s` : clock(value);
}

// `0:07`, `12:34`, `1:02:03`, `3 d 4 h`
export function clock(value) {
  if (!Number.isFinite(value)) return nothing;
  const whole = Math.max(0, Math.round(value));
  const days = Math.floor(whole / 86400), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (days > 0) return `${days} d ${hours % 24} h`;
  const two = (number) => String(number).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export function timeOf(stamp) {
  return stamp ? Date.parse(stamp) : NaN;
}

export function dateTime(stamp) {
  const time = timeOf(stamp);
  return Number.isNaN(time) ? nothing : new Date(time).toLocaleString();
}

export function timeOfDay(stamp) {
  const time = timeOf(stamp);
  return Number.isNaN(time) ? nothing : new Date(time).toLocaleTimeString([], {hourCycle: "h23"});
}

export function ago(stamp, now = Date.now()) {
  const passed = (now - timeOf(stamp)) / 1000;
  if (Number.isNaN(passed)) return nothing;
  if (passed < 60) return "just now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return `${Math.floor(passed / 86400)} d ago`;
}

// STATE_RUNNING -> running, PHASE_IDLE -> idle
export function word(name) {
  return (name ?? "").replace(/^[A-Z]+_/, "").toLowerCase().replaceAll("_", " ");
}

// `forward, step 12, micro-batch 3`; `preparing, 1.20 GiB at 800 MiB/s`
export function activity(of) {
  if (!of || !of.phase) return "";
  const said = [word(of.phase)];
  if (num(of.bytes_done) > 0) said.push(`${bytes(of.bytes_done)} at ${bytes(of.bytes_per_second)}/s`);
  if (num(of.step) > 0) said.push(`step ${count(of.step)}`);
  if (of.phase === "PHASE_FORWARD" || of.phase === "PHASE_BACKWARD") said.push(`micro-batch ${num(of.micro_batch)}`);
  return said.join(", ");
}
