"""Debian's Chromium, and a colleague who works with the same hub over HTTP meanwhile."""

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.support.server import ServedHub

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium")
IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
"""The marks of a test in a browser."""
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PATIENCE_SECONDS = 30
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { token } }"
RECEIVER = (
    "mutation ($input: CreateEventReceiverInput!) { createEventReceiver(input: $input) { eventReceiver { id } } }"
)
RECORD = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id } } }"
DISABLE = "mutation ($input: SetUserEnabledInput!) { setUserEnabled(input: $input) { user { id } } }"
ME = "query { me { username } }"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium, asked to speak to nobody by itself."""
    from playwright.sync_api import expect, sync_playwright  # takes a while to load, and most tests need none

    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


class Colleague:
    """Another client of the same hub, at work while the page is open."""

    def __init__(self, hub: ServedHub) -> None:
        self._url = hub.url
        self.token = self.log_in("admin", hub.admin_password)
        self._receiver = self.ask(
            RECEIVER, {"name": "any", "type": "any", "version": "1", "description": "any", "schema": True}
        )["createEventReceiver"]["eventReceiver"]["id"]

    def post(self, document: str, given: dict[str, Any] | None, token: str) -> dict[str, Any]:
        """The whole answer to a document."""
        body = {"query": document, "variables": {"input": given} if given else {}}
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx2.post(f"{self._url}/graphql", json=body, headers=headers, timeout=PATIENCE_SECONDS).json()

    def ask(self, document: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of an answer without errors."""
        answer = self.post(document, given, self.token)
        assert "errors" not in answer, answer
        return answer["data"]

    def log_in(self, username: str, password: str) -> str:
        """A token."""
        return self.post(LOGIN, {"username": username, "password": password}, "")["data"]["login"]["token"]

    def record(self, name: str) -> str:
        """Record an event; gives its id."""
        unit = {"name": name, "version": "1.0.0", "release": "1", "platformId": "linux", "package": "rpm"}
        rest: dict[str, Any] = {"description": "any", "payload": {}, "success": True, "eventReceiverId": self._receiver}
        recorded: str = self.ask(RECORD, unit | rest)["createEvent"]["event"]["id"]
        return recorded

    def disable(self, user_id: str, token: str) -> None:
        """Disable a user and wait until the hub refuses this token of theirs."""
        self.ask(DISABLE, {"id": user_id, "enabled": False})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "errors" not in self.post(ME, None, token):
            assert time.monotonic() < deadline
            time.sleep(0.1)
