"""A headless Chromium, driven through ChromeDriver by the WebDriver protocol."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
ABSENT = "needs chromium and chromedriver (apt-get install chromium chromium-driver)"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
LOGS = {"goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}


class Browser:
    """One window. `run` evaluates JavaScript in the page and returns its value."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self.client, self.session = client, f"/session/{session}"

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(f"{self.session}/{path}", json=body).json()["value"]
        assert not isinstance(answer, dict) or "error" not in answer, answer
        return answer

    def open(self, url: str) -> None:
        self.post("url", url=url)

    def run(self, script: str, *values: Any) -> Any:
        return self.post("execute/sync", script=script, args=list(values))

    def keys(self, text: str) -> None:
        presses = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.post("actions", actions=[{"type": "key", "id": "keyboard", "actions": presses}])

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        sizes = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        command = "Emulation.setDeviceMetricsOverride"
        self.post("goog/cdp/execute", cmd=command, params=sizes)

    def wait(self, script: str, seconds: float = 20) -> None:
        """Wait until the script gives a true value."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def logs(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post("se/log", type=kind)
        return found

    def screenshot(self, path: Path) -> None:
        answer = self.client.get(f"{self.session}/screenshot").json()["value"]
        path.write_bytes(base64.b64decode(answer))


@contextmanager
def open_browser() -> Iterator[Browser]:
    assert DRIVER is not None
    command = [DRIVER, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        url = f"http://127.0.0.1:{int(line.rpartition(' ')[2].strip('.' + os.linesep))}"
        options = {"binary": CHROMIUM, "args": list(ARGUMENTS)}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, **LOGS}}
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                started = client.post("/session", json={"capabilities": wanted}).json()["value"]
                assert "sessionId" in started, started
                try:
                    yield Browser(client, started["sessionId"])
                finally:
                    client.delete(f"/session/{started['sessionId']}")
        finally:
            driver.terminate()
