"""A headless Chromium, driven through chromedriver's own protocol (W3C WebDriver: JSON over HTTP)."""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # The key that the protocol has for a reference to an element.
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1"]


class Browser:
    """One window. Its profile is a folder of its own, which goes with it."""

    def __init__(self, width=1280, height=900, ignore_certificates=False):
        driver = shutil.which("chromedriver")
        assert driver and shutil.which("chromium"), (
            "tests of web pages and the notebook need a browser, about 380 MB: scripts/setup.sh tests/python/packages.txt")
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-")
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.session = ""
        try:
            self.base = f"http://127.0.0.1:{self.port()}/session"
            options = {"args": [*FLAGS, f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}"]}
            capabilities = {"acceptInsecureCerts": ignore_certificates, "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            self.session = self.ask("POST", "", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        except BaseException:
            self.close()
            raise

    def port(self) -> int:
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                return int(line.rsplit(" ", 1)[1].rstrip(".\n"))
        raise AssertionError("chromedriver does not start")

    def ask(self, method: str, path: str, body: dict | None = None):
        url = f"{self.base}/{self.session}{path}" if self.session else self.base
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, url: str):
        self.ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments):
        """The value that the body of a function returns in the page."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def find(self, selector: str) -> str:
        return self.ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector: str):
        """As a person would: fails where the element cannot be seen or is covered."""
        self.ask("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector: str, text: str):
        self.ask("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def wait(self, script: str, *arguments, seconds=20.0):
        """The first true value of the expression."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.run(f"return {script}", *arguments)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"{script} {arguments} did not come true within {seconds} s; the page:\n{self.text('body')}")

    def look_like(self, width: int, height: int, dark=False, mobile=False, scale=1):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def devtools(self, command: str, **parameters):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: pathlib.Path):
        path.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the console has said since the last time: errors, and what the page's policy has refused."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def close(self):
        if self.session:
            try:
                self.ask("DELETE", "")
            except (AssertionError, OSError):
                pass
        self.driver.terminate()
        self.driver.wait(10)
        self.driver.stdout.close()
        self.profile.cleanup()
