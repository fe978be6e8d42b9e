"""Drive Chromium over its DevTools protocol, by pipes and with the standard library alone."""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """The path of a Chromium, or None; $BROWSER_PATH names another one."""
    return os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)


class Chromium:
    """A headless browser with one page, as on a phone: ``with Chromium(folder) as page: page.open(address)``.

    Args:
        folder: for the profile and for downloads.
        size: (width, height) of the viewport in CSS pixels.
        flags: further command line flags.
    """

    def __init__(self, folder: Path, *, size: tuple[int, int] = (390, 844), flags: tuple[str, ...] = ()) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        self.size, self._number, self._buffer = size, 0, b""
        self.messages: list[str] = []
        self.requests: list[str] = []
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        command = [find_browser() or "", "--headless=new", "--no-sandbox", "--remote-debugging-pipe"]
        command += [f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--disable-extensions", *flags]
        shell = f'exec "$@" 3<&{read_there} 4>&{write_there}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command, "about:blank"],
            pass_fds=(read_there, write_there),
            stderr=(folder / "chromium.log").open("wb"),
            start_new_session=True,
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out = read_here, write_here
        self._session = None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)
        self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self.call("Browser.close", timeout_s=10)
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, *, timeout_s: float = 60, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        os.write(
            self._out, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        deadline = time.monotonic() + timeout_s
        while True:
            received = self._receive(deadline - time.monotonic(), method)
            if received.get("id") == number:
                if "error" in received:
                    raise RuntimeError(f"{method}: {received['error']['message']}")
                return received["result"]
            self._note(received)

    def _receive(self, timeout_s: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, timeout_s))
            if not ready:
                raise TimeoutError(f"the browser does not answer {waiting_for}")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise OSError("the browser has ended")
            self._buffer += chunk
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what the page requests, and what it complains about."""
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(params["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(one.get("value")) for one in params["args"]))
            case "Log.entryAdded":
                self.messages.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))

    def open(self, address: str) -> None:
        """Load a page and wait until its script has run."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression: str, *, timeout_s: float = 60) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, timeout_s=timeout_s
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {json.dumps(found['exceptionDetails'])[:500]}")
        return found["result"].get("value")

    def wait(self, condition: str, *, timeout_s: float = 60) -> Any:
        """Wait until a JavaScript expression is true; its value."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if value := self.evaluate(condition):
                return value
            time.sleep(0.1)
        shown = self.evaluate("document.body.innerText")
        raise TimeoutError(
            f"{condition} is not true after {timeout_s:.0f} s; the page shows {shown!r}; {self.messages}"
        )

    def choose_file(self, selector: str, file: Path) -> None:
        """Put a file into an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file.resolve())])

    def click_at(self, x: float, y: float) -> None:
        """Press and release the mouse at CSS pixels of the viewport."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key, such as ArrowLeft or Tab."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS.get(key, 0))

    def screenshot(self, file: Path, *, dark: bool = False) -> None:
        """Write a PNG of the whole page."""
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=media)
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def downloaded(self, name: str, *, timeout_s: float = 30) -> Path:
        """Wait for a file that the page saves."""
        deadline = time.monotonic() + timeout_s
        while not (self.downloads / name).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{name} was not saved; there are {sorted(p.name for p in self.downloads.iterdir())}"
                )
            time.sleep(0.1)
        return self.downloads / name

    def renderer(self) -> tuple[float, float]:
        """Peak resident memory in MB, and CPU seconds so far, of the process that shows the page."""
        found = (0.0, 0.0)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(folder.name)) != self._process.pid:
                    continue
                if b"--type=renderer" not in (folder / "cmdline").read_bytes():
                    continue
                peak = re.search(r"VmHWM:\s*(\d+) kB", (folder / "status").read_text())
                times = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
            found = max(found, (int(peak[1]) / 1000 if peak else 0.0, seconds))
        return found


_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13}
