// All that goes over the network: requests to /api/v1, and streams that come back by themselves.

const tokenKey = "gpipe-token";
const firstWait = 500, longestWait = 5000;  // Milliseconds between tries.
const silence = 30_000;  // The server says something at least every ten seconds; so long without it is a dead connection.
const hiddenFor = 20_000;  // A tab that nobody sees gives its connection back.

// Of google.rpc.Code: CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and UNAVAILABLE; and what is what in HTTP.
const passing = new Set([1, 4, 8, 14]);
const statusOf = {5: 404, 7: 403, 16: 401};

// The token of this tab, which goes with every request. Readers hear of changes by the event `token` of window.
export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? "",
  set(value) {
    if (value) sessionStorage.setItem(tokenKey, value);
    else sessionStorage.removeItem(tokenKey);
    window.dispatchEvent(new Event("token"));
  },
};

// An answer that is an error: `code` and `message` of its google.rpc.Status, `status` of HTTP.
export class ApiError extends Error {
  constructor(status, body) {
    super(body.message || `HTTP status ${status}`);
    this.status = status;
    this.code = body.code ?? 2;
  }
  // Nobody knows the caller, or it may not do this.
  get denied() {
    return this.status === 401 || this.status === 403;
  }
  // Asking again would be answered alike.
  get final() {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }
}

// Of an error: the API's are google.rpc.Status, a proxy's may be anything.
function statusIn(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {message: text.slice(0, 200).trim()};
  }
}

async function request(method, path, parameters, options = {}) {
  const headers = {...options.headers};
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const query = new URLSearchParams(parameters).toString();
  const response = await fetch(`/api/v1${path}${query ? `?${query}` : ""}`, {cache: "no-store", ...options, method, headers});
  if (!response.ok) throw new ApiError(response.status, statusIn(await response.text()));
  return response;
}

export async function get(path, parameters = {}) {
  return (await request("GET", path, parameters)).json();
}

export async function post(path, body = {}) {
  const options = {body: JSON.stringify(body), headers: {"Content-Type": "application/json"}};
  return (await request("POST", path, {}, options)).json();
}

// Server-sent events out of the bytes of an answer: {event, id, data}; `heard` is called with every piece.
async function* eventsOf(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", event = {data: ""};
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    heard();
    text += value;
    let end;
    while ((end = text.indexOf("\n")) >= 0) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      if (line === "") {
        if (event.data) yield event;
        event = {data: ""};
        continue;
      }
      const colon = line.indexOf(":");
      if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
    }
  }
}

// A watch of the API. Reads with fetch, which unlike EventSource sends the token and says what went wrong. After a
// break it goes on behind the last update, if `resume`; it stops when the server says that there is no more.
export class Stream {
  // handlers: open(), update(message), down(error), end(error or null), the last of all.
  constructor(path, parameters, handlers, {resume = false} = {}) {
    Object.assign(this, {path, parameters, handlers, resume});
    this.closed = false;
    this.abort = new AbortController();
    this.onVisibility = () => this.visibilityChanged();
    this.onPageHide = () => this.interrupt();
    document.addEventListener("visibilitychange", this.onVisibility);
    window.addEventListener("pagehide", this.onPageHide);
    this.run();
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.onVisibility);
    window.removeEventListener("pagehide", this.onPageHide);
    clearTimeout(this.hiding);
    this.interrupt();
  }

  interrupt() {
    this.abort.abort();
    this.wake?.();
  }

  visibilityChanged() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.interrupt(), hiddenFor);
    else this.wake?.();
  }

  async run() {
    let wait = firstWait;
    while (!this.closed) {
      try {
        if (await this.readOnce(() => (wait = firstWait))) return;
        this.handlers.down?.(null);
      } catch (error) {
        if (this.closed) return;
        if (error instanceof ApiError && error.final) return this.finish(error);
        this.handlers.down?.(error);
      }
      await this.pause(wait);
      wait = Math.min(2 * wait, longestWait);
    }
  }

  // True: the server has said that it was all.
  async readOnce(opened) {
    this.abort = new AbortController();
    const parameters = this.resume && this.last ? {...this.parameters, resume_token: this.last} : this.parameters;
    let watchdog = setTimeout(() => this.interrupt(), silence);
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => this.interrupt(), silence);
    };
    try {
      const response = await request("GET", this.path, parameters, {signal: this.abort.signal});
      opened();
      this.handlers.open?.();
      for await (const {event, id, data} of eventsOf(response.body, heard)) {
        if (this.closed) return true;
        if (event === "end") return this.ended(JSON.parse(data));
        if (id) this.last = id;
        this.handlers.update(JSON.parse(data));
      }
    } finally {
      clearTimeout(watchdog);
    }
    return false;
  }

  // Whether that was all: with an error that may pass it is worth another try.
  ended(status) {
    if (passing.has(status.code)) return false;
    this.finish(status.code ? new ApiError(statusOf[status.code] ?? 400, status) : null);
    return true;
  }

  finish(error) {
    this.close();
    this.handlers.end?.(error);
  }

  // Until the time is over and somebody sees the page.
  pause(milliseconds) {
    return new Promise((resolve) => {
      const done = () => {
        if (document.hidden && !this.closed) return;
        clearTimeout(timer);
        this.wake = null;
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.wake = done;
    });
  }
}
