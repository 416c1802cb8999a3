"""The web page in a real browser: over a real cluster, and quick with a large one that is made up."""

import http.client
import json
import re
import signal
import time
import urllib.error
import urllib.request

import pytest

import web_stub
from browser import Browser
from cluster import Cluster, gpipe, wait_until, write_spec
from failure_table import training_spec
from test_security import READ_TOKEN, SecureCluster

SUBMIT_TOKEN = "submit-token-0123456789"
PAGES = ["#/jobs", "#/workers", "#/jobs/{job}"]


@pytest.fixture(scope="module")
def browser():
    window = Browser()
    try:
        yield window
    finally:
        window.close()


def http_address(cluster):
    return re.findall(r"serving HTTP on (\S+)", (cluster.folder / "orchestrator.log").read_text())[-1]


class WebCluster(Cluster):
    """A cluster whose page is at `url`, also after a restart."""

    def __init__(self, folder, **options):
        super().__init__(folder, arguments=["--http-listen", "127.0.0.1:0"], **options)
        self.http_address = http_address(self)
        self.url = f"http://{self.http_address}/"

    def restart(self):
        self.orchestrator.send_signal(signal.SIGTERM)
        self.orchestrator.wait(20)
        yield
        self.arguments = ["--http-listen", self.http_address]
        self.start_orchestrator(port=self.address.rsplit(":", 1)[1])

    def api(self, path, method="GET", headers=None):
        request = urllib.request.Request(f"{self.url}api/v1{path}", method=method, headers=headers or {},
                                         data=b"{}" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    running = WebCluster(tmp_path_factory.mktemp("web"))
    try:
        running.start_workers(3)
        yield running
    finally:
        running.stop()


def long_job(cluster, folder, name="long", steps=100_000):
    spec = training_spec(name, steps=steps)
    spec["train"].update(checkpoint_every=50, keep_checkpoints=1)
    spec["train"]["evaluate"]["every_steps"] = 40
    job = cluster.submit(write_spec(folder, spec))
    wait_until(lambda: int(cluster.job(job).get("steps_done", 0)) > 45, 60, "steps")
    return job


@pytest.fixture
def running_job(web, tmp_path):
    job = long_job(web, tmp_path)
    yield job
    gpipe("job", "cancel", job, address=web.address, check=False)
    web.wait(job)
    web.wait_idle(3)


def shown_step(browser):
    return int(re.search(r"step ([\d,]+) of", browser.text("[data-part=progress]"))[1].replace(",", ""))


def test_the_api_is_that_of_grpc_as_json(web, running_job):
    for path, method, status, code in [("/jobs/nothing-abcdef", "GET", 404, 5), ("/jobs?page_size=x", "GET", 400, 3),
                                       (f"/jobs/{running_job}:cancel", "POST", 401, 16), ("/frobnicate", "GET", 404, 5)]:
        got, body = web.api(path, method)
        assert (got, body["code"]) == (status, code), body
    status, job = web.api(f"/jobs/{running_job}")
    cli = web.job(running_job)
    assert status == 200 and job["workers"] == cli["workers"]
    assert json.dumps(job["spec"]).replace('"', "") == json.dumps(cli["spec"]).replace('"', "")  # int64 are text in proto3's JSON.
    status, body = web.api("/jobs/nothing-abcdef")
    assert body["details"][0]["reason"] == "JOB_NOT_FOUND"


def test_files_of_the_page_are_sent_once_and_nothing_else_is_served(web):
    connection = http.client.HTTPConnection(web.http_address, timeout=10)

    def ask(path, headers=None):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer, answer.read()

    page, body = ask("/")
    assert page.status == 200 and b"<title>GPipe</title>" in body
    assert "default-src 'self'" in page.headers["Content-Security-Policy"] and page.headers["X-Content-Type-Options"] == "nosniff"
    script, _ = ask("/main.js")
    again, body = ask("/main.js", {"If-None-Match": script.headers["ETag"]})
    assert (again.status, body) == (304, b"")
    for path in ("/../main.cc", "/static/main.js", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/api/v1/../../etc/passwd"):
        assert ask(path)[0].status == 404, path


def test_a_running_job_is_shown_with_its_true_numbers(web, browser, running_job):
    before = int(web.job(running_job)["steps_done"])
    browser.open(f"{web.url}#/jobs/{running_job}")
    browser.wait("document.querySelector('[data-part=state]')?.textContent === 'running'")
    shown = browser.wait("/step [1-9]/.test(document.querySelector('[data-part=progress]').textContent)") and shown_step(browser)
    assert before <= shown <= int(web.job(running_job)["steps_done"])
    browser.wait("document.querySelector('[data-part=progress]').textContent.includes('of 100,000')")
    wait_until(lambda: shown_step(browser) > shown, 20, "live progress")

    # Each point of the curve can be read out, and is what the job's metrics have.
    browser.wait("/ at step 1, now /.test(document.querySelector('[data-part=loss-readout]').textContent)")
    browser.wait("/evaluation after step/.test(document.querySelector('[data-part=loss-readout]').textContent)")
    steps = web.api(f"/jobs/{running_job}/metrics?page_size=10")[1]["steps"]
    press(browser, "[data-part=loss-canvas]", "Home")
    assert browser.text("[data-part=loss-readout]").startswith(f"step 1: loss {steps[0]['loss']:.4g}")
    press(browser, "[data-part=loss-canvas]", "ArrowRight")
    assert browser.text("[data-part=loss-readout]").startswith(f"step 2: loss {steps[1]['loss']:.4g}")

    # 3 stages and 4 micro-batches: 2 * (4 + 3 - 1) + 1 clock cycles.
    browser.wait("/clock cycle \\d+ of 13$/.test(document.querySelector('[data-part=grid-caption]').textContent)")
    stages = browser.run("return [...document.querySelectorAll('[data-part=stages-rows] tr')].map((row) => row.innerText)")
    assert len(stages) == 3 and all(f"w{i}" in text for i, text in enumerate(stages)), stages
    browser.wait("/% busy/.test(document.querySelector('[data-part=stages-rows]').textContent)")
    browser.wait("/built stage 1 of 3/.test(document.querySelector('[data-part=events-rows]').textContent)")
    assert browser.complaints() == []


def test_the_timeline_is_that_of_a_step_that_is_kept(web, browser, running_job):
    browser.open(f"{web.url}#/jobs/{running_job}")
    browser.wait("/^Step [\\d,]+ took/.test(document.querySelector('[data-part=timeline-caption]').textContent)")
    browser.click("[data-part=timeline-earlier]")
    browser.wait("document.querySelector('[data-part=timeline-latest]').getAttribute('aria-pressed') === 'false'")
    caption = browser.text("[data-part=timeline-caption]")
    step = int(re.match(r"Step ([\d,]+)", caption)[1].replace(",", ""))
    status, timeline = web.api(f"/jobs/{running_job}/timeline?step={step}")
    if status == 200:  # A job this fast may have gone on.
        shares = f"Bubble {timeline['bubble_share']:.0%}"
        assert browser.text("[data-part=timeline-figures]").startswith(shares)
    press(browser, "[data-part=timeline-canvas]", "Home")
    assert re.match(r"w\d: forward F0 of stage 0, .*clock cycle 0", browser.text("[data-part=timeline-readout]"))


def test_a_job_that_is_not_there_is_said_so(web, browser):
    browser.open(f"{web.url}#/jobs/nothing-abcdef")
    browser.wait("document.querySelector('[data-part=state]')?.textContent === 'not found'")
    assert "nothing-abcdef" in browser.text("[data-part=problem]")
    browser.wait("document.getElementById('link').textContent === 'Live'")
    browser.complaints()  # The console has the 404.


def press(browser, selector, key):
    browser.run("arguments[0].focus(); arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], bubbles: true}))",
                {"element-6066-11e4-a52e-4f735466cecf": browser.find(selector)}, key)


def test_workers_are_shown_with_their_memory_and_what_they_do(web, browser, running_job):
    browser.open(f"{web.url}#/workers")
    browser.wait("document.querySelectorAll('tbody tr').length === 3")
    browser.wait("[...document.querySelectorAll('td.memory')].every((cell) => /[MG]iB of/.test(cell.textContent))")
    browser.wait("[...document.querySelectorAll('td.use')].every((cell) => /\\d%/.test(cell.textContent))")
    assert browser.text("tbody td.work a") == running_job
    assert browser.text("[data-part=summary]") == "3 assigned"


def test_a_job_is_controlled_with_a_token_only(web, browser, running_job):
    browser.open(f"{web.url}#/jobs/{running_job}")
    browser.run("sessionStorage.clear()")
    browser.open("about:blank")
    browser.open(f"{web.url}#/jobs/{running_job}")
    browser.wait("document.querySelector('[data-part=state]')?.textContent === 'running'")
    visible = "[...document.querySelectorAll('.head button')].filter((b) => b.checkVisibility()).map((b) => b.dataset.part)"
    assert not {"pause", "resume", "cancel"} & set(browser.run(f"return {visible}"))

    browser.click("[data-part=token]")
    browser.wait("!document.getElementById('access-unnamed').hidden")
    browser.click("#access button[type=submit]")
    browser.wait("!document.querySelector('[data-part=pause]').hidden")
    browser.click("[data-part=pause]")
    browser.wait("document.querySelector('[data-part=state]').textContent === 'paused'")
    assert web.job(running_job)["state"] == "STATE_PAUSED"
    browser.click("[data-part=resume]")
    browser.wait("document.querySelector('[data-part=state]').textContent === 'running'")

    cancel(browser)
    browser.wait("document.querySelector('[data-part=state]').textContent === 'cancelled'")
    assert web.wait(running_job)["state"] == "STATE_CANCELLED"
    assert "cancelled" in browser.text("#announcer")


def test_the_page_survives_a_restart_of_the_orchestrator(tmp_path, browser):
    cluster = WebCluster(tmp_path / "cluster")
    try:
        cluster.start_workers(3)
        job = long_job(cluster, tmp_path)
        browser.open(f"{cluster.url}#/jobs/{job}")
        browser.wait("document.querySelector('[data-part=state]')?.textContent === 'running'")
        restart = cluster.restart()
        next(restart)
        browser.wait("/does not answer/.test(document.getElementById('notice').innerText)")
        assert browser.text("#link") == "Reconnecting…"
        before = shown_step(browser)
        next(restart, None)
        browser.wait("document.getElementById('link').textContent === 'Live'")
        browser.wait("document.getElementById('notice').hidden")
        wait_until(lambda: shown_step(browser) > before + 50, 60, "progress after the restart")
        assert browser.text("[data-part=figure-attempt]").startswith("2")
        browser.run("location.hash = '#/workers'")
        browser.wait("document.querySelectorAll('tbody tr').length === 3")
    finally:
        cluster.stop()


def test_over_https_everybody_reads_and_a_token_says_who_may_control(tmp_path, monkeypatch):
    cluster = SecureCluster(tmp_path / "cluster", monkeypatch, ["--http-listen", "127.0.0.1:0"])
    (cluster.folder / "tokens").write_text(f"read grafana {READ_TOKEN}\nsubmit alice {SUBMIT_TOKEN}\n")
    browser = Browser(ignore_certificates=True)
    try:
        cluster.start_workers(2)
        job = cluster.submit(write_spec(tmp_path, training_spec("guarded", workers=2, steps=100_000)))
        browser.open(f"https://{http_address(cluster)}/#/jobs/{job}")
        browser.wait("document.querySelector('[data-part=state]')?.textContent === 'running'")
        for token, outcome in [("no-such-token-0123", "The token is not accepted"), (READ_TOKEN, "only submit or admin")]:
            enter_token(browser, token)
            if token == READ_TOKEN:
                browser.wait("!document.querySelector('[data-part=cancel]').hidden")
                cancel(browser)
            browser.wait("document.body.innerText.includes(arguments[0])", outcome)
            assert cluster.job(job)["state"] == "STATE_RUNNING"
            browser.run("sessionStorage.clear(); location.reload()")
            browser.wait("document.querySelector('[data-part=state]')?.textContent === 'running'")
        enter_token(browser, SUBMIT_TOKEN)
        browser.wait("!document.querySelector('[data-part=cancel]').hidden")
        cancel(browser)
        browser.wait("document.querySelector('[data-part=state]').textContent === 'cancelled'")
        assert cluster.wait(job)["state"] == "STATE_CANCELLED"
        log = (cluster.folder / "orchestrator.log").read_text()
        assert SUBMIT_TOKEN not in log and READ_TOKEN not in log
    finally:
        browser.close()
        cluster.stop()


def enter_token(browser, token):
    browser.click("[data-part=token]")
    browser.wait("!document.getElementById('access-named').hidden")
    browser.type("#access-token", token)
    browser.click("#access button[type=submit]")


def cancel(browser):
    browser.click("[data-part=cancel]")
    browser.click("[data-part=confirm] button.danger")


@pytest.fixture(scope="module")
def crowd():
    """1000 jobs, of which 200 wait and one runs, and 64 workers that say something thirty times a second."""
    server = web_stub.serve(web_stub.MadeUp(1000, 64))
    yield "http://%s:%d/" % server.server_address
    server.shutdown()


def test_a_thousand_jobs_are_quick(crowd, browser):
    browser.open("about:blank")
    begun = time.monotonic()
    browser.open(f"{crowd}#/jobs")
    browser.wait("document.querySelectorAll('tbody tr').length === 50")
    assert time.monotonic() - begun < 5
    browser.wait("document.getElementById('link').textContent === 'Live'")
    # While updates come in, frames are drawn and a key is answered at once.
    frames = browser.ask("POST", "/execute/async", {"args": [], "script": """
        const done = arguments[0], begun = performance.now();
        let frames = 0;
        (function next() {
          if (performance.now() - begun > 2000) return done(frames);
          ++frames;
          requestAnimationFrame(next);
        })();"""})
    assert frames > 30, f"{frames} frames in two seconds"
    browser.type("input[type=search]", "job-0777")
    browser.wait("document.querySelectorAll('tbody tr').length === 1", seconds=3)
    assert browser.text("tbody tr .id a").startswith("job-0777")

    browser.open(f"{crowd}#/workers")
    browser.wait("document.querySelectorAll('tbody tr').length === 64", seconds=5)


def test_a_gpu_in_trouble_says_so(crowd, browser):
    browser.open(f"{crowd}#/workers")
    browser.wait("document.querySelectorAll('tbody tr').length === 64", seconds=5)
    told = "return [...document.querySelectorAll('tbody tr')].slice(0, 2).map((row) => row.querySelector('%s').textContent)"
    assert browser.run(told % ".health") == ["40 °C, 413 W, 1,980 MHz", "41 °C, 413 W, 1,335 MHz"]
    assert browser.run(told % ".trouble") == ["", "slowed by heat, 2 memory errors"]
    assert browser.run("return document.querySelector('td.device .which').title") == "cudnn 9.19.0, torch 2.11.0"


def test_text_from_outside_is_only_text(crowd, browser):
    browser.complaints()
    browser.open(f"{crowd}#/jobs/gpt2-char-a1b2c3")
    browser.wait("document.querySelector('[data-part=events-rows]')?.innerText.includes('<img src=x onerror=alert(1)>')")
    assert browser.run("return document.querySelectorAll('main img').length") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_shows_all_without_scrolling_sideways(crowd, browser, page):
    try:
        for width in (320, 390):
            browser.look_like(width, 800, mobile=True)
            browser.open("about:blank")
            browser.open(crowd + page.format(job="gpt2-char-a1b2c3"))
            browser.wait("document.querySelector('tbody tr')")
            browser.wait("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.look_like(1280, 900)


@pytest.mark.parametrize("page", PAGES)
def test_everything_has_a_name_for_a_screen_reader(crowd, browser, page):
    browser.open(crowd + page.format(job="gpt2-char-a1b2c3"))
    browser.wait("document.querySelector('tbody tr')")
    nodes = [node for node in browser.devtools("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    roles = {}
    for node in nodes:
        roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "link", "searchbox", "combobox", "progressbar", "meter", "image", "table", "navigation"):
        assert all(roles.get(role, [])), (role, roles[role])
    assert len(roles["heading"]) >= 1 and len(roles["main"]) == 1 and len(roles["banner"]) == 1
    assert {"row", "columnheader", "rowheader", "cell"} <= set(roles), sorted(roles)


def test_the_first_key_skips_to_the_content(crowd, browser):
    browser.open("about:blank")
    browser.open(f"{crowd}#/workers")
    browser.wait("document.querySelector('tbody tr')")
    browser.devtools("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.run("return document.activeElement.textContent") == "Skip to the content"
    browser.devtools("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    browser.wait("document.activeElement.tagName === 'H1'")
