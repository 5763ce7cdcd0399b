"""The playground of a served hub in a real browser: sign-in, operations, subscriptions and the handling of secrets."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.flows.playground_page import Visit
from tests.support.browser import IN_CHROMIUM, ME, OtherUser
from tests.support.server import ServedHub, serving

pytestmark = IN_CHROMIUM
USER = "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } } }"
KEY = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }"
STORED = """key => new Promise((done) => {
    const look = () => (key in localStorage ? done() : setTimeout(look, 50));
    look();
})"""
# Chromium writes this into its console when the hub rejects a request as unauthenticated.
UNAUTHORIZED = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"


@pytest.fixture(scope="module")
def hub() -> Iterator[ServedHub]:
    """Starts a new hub."""
    with serving() as hub:
        yield hub


@pytest.fixture(scope="module")
def other_user(hub: ServedHub) -> OtherUser:
    """Returns another client of the hub."""
    return OtherUser(hub)


@pytest.fixture
def visit(browser: Browser, hub: ServedHub) -> Iterator[Visit]:
    """Opens the page for the first time and checks it at the end of the test.

    The page requested no other origin, sent no token in an address, and logged no console error that the test did not
    remove from the list."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["clipboard-read"])
    visit = Visit(context.new_page(), hub.url, hub.admin_password)
    visit.begin()
    yield visit
    context.close()
    addresses = [address for address in visit.addresses if not address.startswith("data:")]
    assert {urlsplit(address).netloc for address in addresses} == {urlsplit(hub.url).netloc}
    assert not [address for address in addresses for token in visit.tokens if token in address]
    assert visit.console_errors == []


def test_examples_lead_to_a_complete_gate(visit: Visit):
    visit.sign_in()
    visit.execute()
    receiver = visit.response_id()
    visit.show("CreateGroup")
    visit.replace("paste the receiver's id here", receiver)
    visit.execute()
    expect(visit.response).to_contain_text("eventReceiverGroup")
    group = visit.response_id()
    visit.show("Watch")
    visit.execute()
    expect(visit.response).to_contain_text("Checkpoint")
    visit.show("RecordEvent")
    visit.replace("paste the receiver's id here", receiver)
    visit.execute()
    expect(visit.response).to_contain_text(re.compile(r'"complete":\strue'))
    event = visit.response_id()
    visit.show("RecentEvents")
    visit.execute()
    expect(visit.response).to_contain_text("edges")
    assert visit.response_id() == event
    visit.show("Gate")
    visit.replace("paste the group's id here", group)
    visit.execute()
    expect(visit.response).to_contain_text("PASSED")
    assert visit.response_id() == event


def test_signed_in_user_runs_an_operation(visit: Visit):
    visit.sign_in()
    visit.write(ME)
    visit.execute()
    expect(visit.response).to_contain_text(re.compile(r'"username":\s"admin"'))


def test_wrong_password_is_reported(visit: Visit):
    visit.fill_in("admin", "wrong")
    expect(visit.dialog.get_by_role("alert")).to_have_text("user name or password is wrong")
    expect(visit.dialog).to_be_visible()
    visit.decline()
    expect(visit.status).to_have_text("Not signed in")


def test_api_key_signs_in(visit: Visit, other_user: OtherUser):
    visit.page.get_by_text("API key").click()
    secret = other_user.ask(KEY, {"name": "for the playground"})["createApiKey"]["secret"]
    visit.page.get_by_role("textbox", name="API key").fill(secret)
    visit.page.keyboard.press("Enter")
    expect(visit.status).to_have_text("Signed in as admin by API key")


def test_schema_is_not_requested_before_sign_in(visit: Visit):
    visit.decline()
    visit.page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(visit.page.get_by_text("No GraphQL schema available")).to_be_visible()
    assert f"{visit.hub}/graphql" not in visit.addresses


def test_schema_is_shown_after_sign_in(visit: Visit):
    visit.sign_in()
    visit.page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(visit.page.get_by_role("link", name="EventReceiverGroup", exact=True)).to_be_visible()


def test_subscription_shows_events_of_another_client(visit: Visit, other_user: OtherUser):
    visit.sign_in()
    visit.show("Watch")
    visit.execute()
    expect(visit.response).to_contain_text("Checkpoint")
    other_user.record("seen-live")
    expect(visit.response).to_contain_text("seen-live")
    assert visit.hub.replace("http:", "ws:") + "/graphql" in visit.addresses
    assert [token for token in visit.tokens for frame in visit.sent if token in frame and "connection_init" in frame]


def test_sign_out_ends_the_subscription(visit: Visit, other_user: OtherUser):
    visit.sign_in()
    visit.show("Watch")
    visit.execute()
    expect(visit.response).to_contain_text("Checkpoint")
    visit.sign_out()
    expect(visit.page.get_by_role("button", name="Execute query")).to_be_visible()
    other_user.record("after-the-end")
    visit.write(ME)
    visit.execute()
    expect(visit.response).to_contain_text("sign in first")
    expect(visit.response).not_to_contain_text("after-the-end")
    assert visit.tokens
    assert not [token for token in visit.tokens if token in visit.stored_data()]
    visit.console_errors.remove(UNAUTHORIZED)


@pytest.mark.parametrize("document", [ME, "subscription { stream { cursor } }"], ids=["query", "subscription"])
def test_ended_session_asks_for_sign_in(
    visit: Visit, other_user: OtherUser, document: str, request: pytest.FixtureRequest
):
    name, password = f"guest-of-a-{request.node.callspec.id}", "a password for guests"
    user = other_user.ask(USER, {"username": name, "password": password, "roles": ["EVENT_VIEWER"]})["createUser"][
        "user"
    ]
    visit.sign_in(name, password)
    other_user.disable(user["id"], other_user.log_in(name, password))
    visit.write(document)
    visit.execute()
    expect(visit.dialog).to_contain_text("Your session has ended.")
    expect(visit.status).to_have_text("Not signed in")
    assert set(visit.console_errors) <= {UNAUTHORIZED}
    visit.console_errors.clear()


def test_browser_keeps_neither_token_nor_documents(visit: Visit):
    visit.sign_in()
    visit.write('query Secretive { me { username } } # "hunter2"')
    visit.execute()
    expect(visit.response).to_contain_text("admin")
    # GraphiQL stores changes after a delay of half a second. The size of a pane that changes now is therefore stored
    # after the document that changed before.
    visit.page.locator(".graphiql-horizontal-drag-bar").hover()
    visit.page.mouse.down()
    visit.page.mouse.move(500, 300, steps=3)
    visit.page.mouse.up()
    visit.page.evaluate(STORED, "graphiql:editorFlex")
    stored = visit.stored_data()
    assert visit.tokens
    assert not [token for token in visit.tokens if token in stored]
    assert visit.password not in stored
    assert "hunter2" not in stored
    visit.page.reload()
    expect(visit.status).to_have_text("Not signed in")
