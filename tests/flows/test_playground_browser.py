"""The playground in a real browser: signing in, asking, watching, and what it must never do."""

import json
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, WebSocket, expect, sync_playwright

from tests.support.stand_in_hub import API_KEY, PASSWORD, TOKEN, stand_in_hub

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
CREATE = "mutation { createEvent(input: {name: %s, version: %s, success: true}) { event { id name } } }"


class Visit:
    """A page of the playground, with all that it asked for and complained about."""

    def __init__(self, page: Page, hub: str) -> None:
        self.page = page
        self.hub = hub
        self.addresses: list[str] = []
        self.sent: list[str] = []
        self.complaints: list[str] = []
        self.status = page.get_by_role("status").filter(has_text="igned in")
        self.answer = page.locator(".result-window .view-lines")
        page.on("request", lambda request: self.addresses.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._console)
        page.on("websocket", self._websocket)
        page.goto(f"{hub}/graphql/playground")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in {"info", "debug", "log"}:
            self.complaints.append(message.text)

    def _websocket(self, socket: WebSocket) -> None:
        self.addresses.append(socket.url)
        socket.on("framesent", lambda frame: self.sent.append(str(frame)))

    def sign_in(self, password: str = PASSWORD) -> None:
        """Fill in the dialog and send it."""
        self.page.get_by_label("User name").fill("admin")
        self.page.get_by_role("textbox", name="Password").fill(password)
        self.page.get_by_role("dialog").get_by_role("button", name="Sign in").click()

    def decline(self) -> None:
        """Put the sign-in dialog away."""
        self.page.get_by_role("button", name="Not now").click()

    def run(self, document: str) -> None:
        """Put a document into a new tab and run it."""
        self.page.get_by_role("button", name="New tab").click()
        self.page.locator(".graphiql-query-editor textarea").first.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(document)
        self.page.get_by_role("button", name="Execute query").click()

    def show(self, tab: str) -> None:
        """Turn to one of the examples."""
        self.page.get_by_role("tab", name=tab).click()

    def kept(self) -> str:
        """All that the browser would still have after the visit."""
        storage = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        return str(self.page.evaluate(storage))


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of a hub with the playground."""
    with stand_in_hub() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, asked to speak to nobody by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, hub: str) -> Iterator[Visit]:
    """A first visit; when it is over, nothing was asked of another origin and nothing broke the policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context.new_page(), hub)
    yield visit
    context.close()
    assert {urlsplit(address).netloc for address in visit.addresses if not address.startswith("data:")} == {
        urlsplit(hub).netloc
    }
    assert visit.complaints == []


def record(hub: str, name: str) -> None:
    """Record an event as another client would."""
    query = CREATE % (json.dumps(name), json.dumps("1.0.0"))
    answer = httpx2.post(f"{hub}/graphql", json={"query": query}, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.json()["data"]["createEvent"]["event"]["name"] == name


def test_signed_in_a_visitor_runs_an_operation(visit: Visit):
    visit.sign_in()
    expect(visit.status).to_contain_text("Signed in as admin until")
    visit.run(CREATE % ('"webshop"', '"1.4.0"'))
    expect(visit.answer).to_contain_text(re.compile(r'"name":\s"webshop"'))


def test_a_wrong_password_is_said_and_signs_nobody_in(visit: Visit):
    visit.sign_in("wrong")
    expect(visit.page.get_by_role("dialog").get_by_role("alert")).to_have_text("The user name or password is wrong.")
    expect(visit.page.get_by_role("dialog")).to_be_visible()
    visit.decline()
    expect(visit.status).to_have_text("Not signed in")


def test_an_api_key_signs_in_too(visit: Visit):
    visit.page.get_by_text("API key").click()
    visit.page.get_by_role("textbox", name="API key").fill(API_KEY)
    visit.page.keyboard.press("Enter")
    expect(visit.status).to_have_text("Signed in as admin by API key")


def test_nothing_asks_for_the_schema_before_somebody_signed_in(visit: Visit):
    visit.decline()
    visit.page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(visit.page.get_by_text("No GraphQL schema available")).to_be_visible()
    assert f"{visit.hub}/graphql" not in visit.addresses


def test_a_subscription_shows_what_another_client_records(visit: Visit):
    visit.sign_in()
    expect(visit.status).to_contain_text("Signed in")
    visit.show("Watch")
    visit.page.get_by_role("button", name="Execute query").click()
    expect(visit.answer).to_contain_text("Checkpoint")
    record(visit.hub, "seen-live")
    expect(visit.answer).to_contain_text("seen-live")
    assert visit.hub.replace("http:", "ws:") + "/graphql" in visit.addresses
    assert any(TOKEN in frame and "connection_init" in frame for frame in visit.sent)


def test_signing_out_ends_the_subscription_and_forgets_the_token(visit: Visit):
    visit.sign_in()
    expect(visit.status).to_contain_text("Signed in")
    visit.show("Watch")
    visit.page.get_by_role("button", name="Execute query").click()
    expect(visit.answer).to_contain_text("Checkpoint")
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.status).to_have_text("Not signed in")
    expect(visit.page.get_by_role("button", name="Execute query")).to_be_visible()
    record(visit.hub, "after-the-end")
    visit.run("query { me { username } }")
    expect(visit.answer).to_contain_text("Sign in first.")
    expect(visit.answer).not_to_contain_text("after-the-end")


def test_a_session_that_the_hub_ended_asks_to_sign_in_again(visit: Visit):
    visit.sign_in()
    expect(visit.status).to_contain_text("Signed in")
    expired = {"errors": [{"message": "Sign in again.", "extensions": {"code": "TOKEN_EXPIRED"}}]}
    visit.page.route("**/graphql", lambda route: route.fulfill(json=expired))
    visit.run("query { me { username } }")
    expect(visit.page.get_by_role("dialog")).to_contain_text("Your session has ended.")
    expect(visit.status).to_have_text("Not signed in")


def test_neither_token_nor_documents_outlive_the_page(visit: Visit):
    visit.sign_in()
    expect(visit.status).to_contain_text("Signed in")
    visit.run('query Secretive { me { username } } # "hunter2"')
    expect(visit.answer).to_contain_text("admin")
    visit.page.wait_for_timeout(1000)  # GraphiQL writes its state half a second after the last key
    kept = visit.kept()
    assert TOKEN not in kept
    assert PASSWORD not in kept
    assert "hunter2" not in kept
    visit.page.reload()
    expect(visit.status).to_have_text("Not signed in")


def test_the_examples_come_with_their_variables(visit: Visit):
    visit.decline()
    variables = visit.page.locator(".graphiql-editor-tool .view-lines").first
    expect(variables).to_contain_text("io.example.build")
    visit.show("RecentEvents")
    expect(variables).to_contain_text('"first"')
