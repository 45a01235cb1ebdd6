#!/usr/bin/env python3
"""The page of qwen3 serve in headless Chromium. Skipped without the Debian packages chromium and chromium-driver."""
import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from e2e import Checks

from serve_client import Server, built_without_server, free_port

ENTER, SHIFT, ESCAPE = "\ue007", "\ue008", "\ue00c"
HOSTILE = "<img src=x onerror=document.title='broken'> **bold** `code`\n\n- one\n- two\n\n```\n<b>block</b>\n```\nend"


class Browser:
    """A session of WebDriver (www.w3.org/TR/webdriver2)."""

    def __init__(self, port, width=900):
        self.base = f"http://127.0.0.1:{port}"
        options = {"binary": shutil.which("chromium"), "args": ["--headless=new", "--no-sandbox", "--disable-gpu",
                                                                f"--window-size={width},700"]}
        capabilities = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options}
        self.session = "/session/" + self.call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}},
                                               session=False)["sessionId"]

    def call(self, method, path, body=None, session=True):
        request = urllib.request.Request(self.base + (self.session if session else "") + path, method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, text, selector="#input"):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{next(iter(found.values()))}/value", {"text": text})

    def click(self, selector):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{next(iter(found.values()))}/click", {})

    def log(self):
        return self.run("return document.getElementById('log').innerText")

    def wait(self, script, seconds=20):
        end = time.monotonic() + seconds
        while not self.run(f"return {script}"):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def close(self):
        self.call("DELETE", "")


@contextlib.contextmanager
def driver():
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        child = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env={**os.environ, "HOME": home})
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5).close()
                    break
                time.sleep(0.05)
            yield port
        finally:
            child.terminate()
            child.wait()


def check_talk(c, b, s):
    b.open(s.address)
    c.true("the name of the model", b.wait("document.getElementById('title').textContent === 'demo'"))
    b.keys("The red box holds 4711." + SHIFT + ENTER + SHIFT + "Anna lives in Paris.")
    c.true("Shift+Enter begins a line", b.run("return document.getElementById('input').value")
           == "The red box holds 4711.\nAnna lives in Paris.")
    b.keys(ENTER)
    c.true("Enter sends", b.wait("!running && conversations[0]?.messages.length === 2"), b.log())
    b.keys("What does the red box hold?" + ENTER)
    c.true("the answer", b.wait("!running && conversations[0].messages.length === 4")
           and "The red box holds 4711." in b.log(), b.log())
    c.true("the speed", "tokens/s" in b.log(), b.log())
    b.open(s.address)
    c.true("conversations are kept", "What does the red box hold?" in b.log(), b.log())
    b.click("#again")
    c.true("the last question is answered again", b.wait("!running && conversations[0].messages.length === 4"), b.log())
    others = b.run("return performance.getEntriesByType('resource').map(e => e.name)"
                   ".filter(n => !n.startsWith(location.origin))")
    c.true("nothing comes from elsewhere", others == [], others)


def check_text(c, b):
    html = b.run("const d = document.createElement('div'); document.body.append(d); markdown(d, arguments[0]);"
                 "const html = d.innerHTML; d.remove(); return html", HOSTILE)
    c.true("text of a model is no markup", "<img" not in html and "<b>" not in html
           and "<strong>bold</strong>" in html and "<code>code</code>" in html and "<li>two</li>" in html
           and "&lt;b&gt;block" in html and b.run("return document.title") == "demo", html)
    b.run("show({role: 'user', content: arguments[0]}); show({role: 'assistant', content: 'x', reasoning_content:"
          " arguments[0], tool_calls: [{function: {name: arguments[0], arguments: arguments[0]}}]})", HOSTILE)
    c.true("nor elsewhere", b.run("return document.querySelector('#log img') === null"))
    c.true("reasoning is folded", b.run("return !document.querySelector('#log details:not([hidden])').open"))


def check_stop(c, b, s):
    ends = [s.post("/tokenize", {"content": t}).json["tokens"] for t in ("<|im_end|>", "<|endoftext|>")]
    b.run("const inner = request; window.request = c => ({...inner(c), max_tokens: 1300, logit_bias: arguments[0]})",
          {str(ids[0]): -100 for ids in ends})
    b.click("#new")
    b.keys("Hello!" + ENTER)
    c.true("an answer that goes on", b.wait("running && running.message.content.length > 20"), b.log())
    c.true("can be stopped by a button", b.run("return document.getElementById('send').textContent") == "Stop")
    b.keys(ESCAPE, "body")
    c.true("Esc stops", b.wait("!running", 5) and b.run("return conversations[0].messages[1].content.length > 20"))
    c.true("and what was said stays", b.wait("document.getElementById('send').textContent === 'Send'"))


def check_settings(c, b):
    b.click("#settings")
    b.run("for (const [name, value] of Object.entries(arguments[0])) document.getElementById(name).value = value",
          {"system": "Be brief.", "temperature": "0.5", "theme": "dark", "thinking": "off"})
    b.click("#dialog button")
    c.true("settings are sent", b.wait("request({messages: []}).temperature === 0.5")
           and b.run("const r = request({messages: [1, 2]}); return r.messages[0].content === 'Be brief.'"
                     " && r.enable_thinking === false"))
    c.true("dark", b.run("return getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)")
    b.call("POST", "/window/rect", {"width": 500, "height": 800})
    c.true("on a phone nothing is wider than the screen",
           b.run("return document.documentElement.scrollWidth <= window.innerWidth"))
    b.click("#menu")
    c.true("and conversations are behind a button",
           b.wait("document.getElementById('side').getBoundingClientRect().left >= 0", 3))


def main():
    if built_without_server() or not (shutil.which("chromium") and shutil.which("chromedriver")):
        print("skipped: needs libmicrohttpd, chromium and chromium-driver")
        return 77
    c = Checks()
    with Server() as s, driver() as port:
        b = Browser(port)
        try:
            check_talk(c, b, s)
            check_text(c, b)
            check_stop(c, b, s)
            check_settings(c, b)
            if len(sys.argv) > 1:
                pathlib.Path(sys.argv[1]).write_bytes(base64.b64decode(b.call("GET", "/screenshot")))
            faults = [entry for entry in b.call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
            c.true("no fault in the console", not faults, faults)
        finally:
            b.close()
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
