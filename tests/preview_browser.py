"""A headless Chromium, told what to do over a pipe (the DevTools protocol), without any driver package."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive = os.fdopen(send, "wb"), os.fdopen(receive, "rb")
        self.number, self.session = 0, ""
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requested: list[str] = []

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
        self.call("Page.navigate", url=f"{page.as_uri()}#{fragment}")
        while self.run("document.readyState") != "complete":
            pass
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
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
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


@contextmanager
def started_browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    shell = ["sh", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "sh", *command]
    log = profile.with_suffix(".log").open("w")
    process = subprocess.Popen(shell, pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log)
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Browser(ours_out, ours_in)
    try:
        yield browser
    finally:
        browser.session = ""
        browser.call("Browser.close")
        process.wait(timeout=30)
        browser.send.close()
        browser.receive.close()
        log.close()
