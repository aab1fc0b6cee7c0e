"""A headless Chromium, driven over a pipe by its DevTools protocol, and a plain server of a folder."""

import base64
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading

import pytest

#: What Chromium is called on the systems that tests run on.
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One Chromium. Messages are JSON, each ended by a zero byte; it reads them from descriptor 3 and writes to 4."""

    def __init__(self, profile):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        assert program, f"the page is tested in a browser: apt-get install chromium (or one of {', '.join(NAMES)})"
        here, there = os.pipe(), os.pipe()
        options = "--headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,760"
        piped = f"--remote-debugging-pipe 3<&{here[0]} 4>&{there[1]}"
        command = f"exec {program} {options} --user-data-dir={profile} {piped}"
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(here[0], there[1]), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(here[0])
        os.close(there[1])
        self.to, self.back = open(here[1], "wb"), open(there[0], "rb")
        self.count, self.rest = 0, b""

    def call(self, method, session=None, **parameters):
        """The result of one command."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        self.to.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self.to.flush()
        while True:
            while b"\0" not in self.rest:
                piece = self.back.read1(2**20)
                assert piece, "Chromium has ended"
                self.rest += piece
            text, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, address):
        """A page at `address`, whose network has loaded."""
        page = Page(self, address)
        page.run("ready")
        return page

    def close(self):
        self.call("Browser.close")
        self.process.wait(20)
        self.to.close()
        self.back.close()


class Page:
    """A tab."""

    def __init__(self, browser, address):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Page.navigate", url=address)
        self.run("new Promise((resolve) => document.readyState === 'complete' ? resolve() : (onload = resolve))")

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def run(self, code):
        """The value of JavaScript code; of a promise what it comes to."""
        given = dict(expression=code, awaitPromise=True, returnByValue=True)
        answer = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def stroke(self, selector, points):
        """Press the mouse at the first of `points` (shares of an element's size), and move it along them."""
        box = self.run(f"JSON.stringify(document.querySelector('{selector}').getBoundingClientRect())")
        box = json.loads(box)
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            place = dict(x=box["x"] + x * box["width"], y=box["y"] + y * box["height"])
            buttons = 0 if kind == "mouseReleased" else 1
            self.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=buttons, clickCount=1, **place)
        self.run(
            "new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(classify.before), 50)))"
        )

    def choose(self, selector, path):
        """Give a file to an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def wait_for(self, selector):
        """Until there is such an element."""
        found = f"document.querySelector('{selector}') ? resolve() : setTimeout(look, 20)"
        self.run(f"new Promise((resolve) => {{ const look = () => {found}; look(); }})")

    def screenshot(self):
        """The bytes of a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` runs, without its log."""

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served():
    """folder -> the address of a server of it."""
    servers = []

    def serve(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/index.html"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
