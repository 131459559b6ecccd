"""A headless Chromium, told what to do over a pipe (the DevTools protocol), without any driver package."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
# Waits until the page is loaded and every picture that is in view has been drawn.
_SETTLE = """new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(Promise.all(
  [...document.images].filter((image) => image.complete && image.src).map((image) => image.decode()))
  .then(() => true)), 50)))"""


class Browser:
    """One tab.

    Args:
        send: The pipe to the browser.
        receive: The pipe from it.
    """

    def __init__(self, send: BinaryIO, receive: BinaryIO) -> None:
        self.send, self.receive = send, receive
        self.number, self.session = 0, ""
        self.complaints: list[str] = []
        self.requested: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.send.write(json.dumps(message).encode() + b"\0")
        self.send.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, page: Path, fragment: str = "", *, width: int = 1366, height: int = 768) -> None:
        """Open a page afresh and wait until it is drawn; complaints about it fail."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url="about:blank")
        url = f"{page.as_uri()}#{fragment}" if fragment else page.as_uri()
        self.call("Page.navigate", url=url)
        while self.run("[location.href, document.readyState]") != [url, "complete"]:
            time.sleep(0.01)
        self.settle()

    def settle(self) -> None:
        """Wait until what has changed is drawn."""
        self.run(_SETTLE)
        assert self.complaints == []

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, which must be plain JSON."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press and release keys, one after another."""
        for key in keys:
            text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
            code = {"Escape": 27, "Enter": 13}.get(key, 0)
            for kind, more in (("keyDown", text), ("keyUp", {})):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)
        self.settle()

    def click(self, x: float, y: float) -> None:
        """Click at a point of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def screenshot(self, path: Path) -> None:
        """Write what is in view as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self.receive.read(1)) != b"\0":
            assert byte, "the browser has gone"
            text += byte
        answer: dict[str, Any] = json.loads(text)
        match answer.get("method"):
            case "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(answer["params"]))
            case "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
        return answer


# The browser listens on 3 and answers on 4, whatever numbers the pipes have here.
_LAUNCH = """import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])"""


@contextmanager
def started_browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    launch = [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), *command]
    with (
        os.fdopen(ours_out, "wb") as send,
        os.fdopen(ours_in, "rb") as receive,
        profile.with_suffix(".log").open("w") as log,
        subprocess.Popen(launch, pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log) as process,
    ):
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            browser = Browser(send, receive)
            yield browser
            browser.session = ""
            browser.call("Browser.close")
            process.wait(timeout=30)
        finally:
            process.kill()
