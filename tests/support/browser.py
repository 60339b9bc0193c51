"""Debian's Chromium, headless, and pages in it: one process a session, a driver and a memory of its own for each test.

The driver is Playwright's, over the browser's own protocol. Names outside of this machine do not resolve, so what a
page asks of the internet fails, and is no trouble of ours. What a page complains of is kept in `Tab.troubles`.
"""

import os
import re
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, Final, Literal

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect
from yarl import URL

_FLAGS: Final = (
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.2, EXCLUDE localhost",
)
_START_SECONDS: Final = 60
_PATIENCE: Final = 30_000  # of a wait for what has to come; milliseconds
_LOCAL: Final = frozenset({"127.0.0.1", "127.0.0.2", "localhost"})


class Chromium:
    """The process. Its profile is an empty folder."""

    def __init__(self, program: Path, profile: Path) -> None:
        argv = [str(program), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._said: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.endpoint = self._said.get(timeout=_START_SECONDS)

    def _read(self) -> None:
        """Read to the end: a full pipe would stop the browser."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on (\S+)", line):
                self._said.put(found[1])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._reader.join(timeout=30)
        assert self._process.stderr is not None
        self._process.stderr.close()


@dataclass(kw_only=True)
class Tab:
    """A page, and what it complained of so far: errors on its console, exceptions, what a policy blocked."""

    page: Page
    troubles: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Keep errors and warnings, but for what is about a host outside."""
        host = URL(message.location.get("url", "")).host
        if message.type in {"error", "warning"} and (host is None or host in _LOCAL):
            self.troubles.append(f"{message.type}: {message.text}")

    async def shoot(self, name: str, *, full: bool = True) -> None:
        """Take a picture for people to look at, where `$DUALTRACK_SCREENSHOTS` says, or else `build/screenshots`."""
        folder = Path(os.environ.get("DUALTRACK_SCREENSHOTS") or "build/screenshots")
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a moment, in a test
        await self.page.screenshot(path=folder / f"{name}.png", full_page=full)


class Visitor:
    """Opens tabs, each with cookies and memory of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def open(
        self,
        url: str,
        *,
        scheme: Literal["light", "dark"] = "light",
        width: int = 1280,
        height: int = 900,
        **options: Any,
    ) -> Tab:
        size: Any = {"width": width, "height": height}
        context = await self._browser.new_context(
            color_scheme=scheme, viewport=size, reduced_motion="reduce", locale="en-GB", **options
        )
        context.set_default_timeout(_PATIENCE)
        tab = Tab(page=await context.new_page())
        tab.page.on("console", tab.hear)
        tab.page.on("pageerror", lambda error: tab.troubles.append(f"exception: {error}"))
        await tab.page.goto(url)
        return tab


@asynccontextmanager
async def visiting(chromium: Chromium) -> AsyncIterator[Visitor]:
    expect.set_options(timeout=_PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium.endpoint)
        try:
            yield Visitor(browser)
        finally:
            for context in browser.contexts[1:]:  # the first is the browser's own
                await context.close()
            await browser.close()
