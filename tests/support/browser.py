"""Debian's Chromium, and another user that works with the same hub over HTTP."""

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
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium"),
]  # the marks of a browser test
CHROMIUM_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
TIMEOUT_SECONDS = 30
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { token } }"
RECEIVER = (
    "mutation ($input: CreateEventReceiverInput!) { createEventReceiver(input: $input) { eventReceiver { id } } }"
)
RECORD = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id } } }"
DISABLE = "mutation ($input: SetUserEnabledInput!) { setUserEnabled(input: $input) { user { id } } }"
ME = "query { me { username } }"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium without its own background requests."""
    from playwright.sync_api import expect, sync_playwright  # slow to import, and most tests do not need it

    expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS.split())
        yield browser
        browser.close()


class OtherUser:
    """A second client of the same hub."""

    def __init__(self, hub: ServedHub) -> None:
        self._url = hub.url
        self.token = self.log_in("admin", hub.admin_password)
        self._receiver = self.ask(
            RECEIVER, {"name": "any", "type": "any", "version": "1", "description": "any", "schema": True}
        )["createEventReceiver"]["eventReceiver"]["id"]

    def post(self, document: str, input: dict[str, Any] | None, token: str) -> dict[str, Any]:
        """Executes a document and returns the whole response."""
        body = {"query": document, "variables": {"input": input} if input else {}}
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx2.post(f"{self._url}/graphql", json=body, headers=headers, timeout=TIMEOUT_SECONDS).json()

    def ask(self, document: str, input: dict[str, Any]) -> dict[str, Any]:
        """Executes a document and returns its data. Fails on errors."""
        response = self.post(document, input, self.token)
        assert "errors" not in response, response
        return response["data"]

    def log_in(self, username: str, password: str) -> str:
        """Returns a token."""
        return self.post(LOGIN, {"username": username, "password": password}, "")["data"]["login"]["token"]

    def record(self, name: str) -> str:
        """Records an event and returns its id."""
        unit = {"name": name, "version": "1.0.0", "release": "1", "platformId": "linux", "package": "rpm"}
        rest: dict[str, Any] = {"description": "any", "payload": {}, "success": True, "eventReceiverId": self._receiver}
        recorded: str = self.ask(RECORD, unit | rest)["createEvent"]["event"]["id"]
        return recorded

    def disable(self, user_id: str, token: str) -> None:
        """Disables a user and waits until the hub rejects the user's token."""
        self.ask(DISABLE, {"id": user_id, "enabled": False})
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while "errors" not in self.post(ME, None, token):
            assert time.monotonic() < deadline
            time.sleep(0.1)
