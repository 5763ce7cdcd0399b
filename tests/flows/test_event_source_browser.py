"""A browser's EventSource, which cannot send headers, follows the stream with tickets and survives a hub crash."""

from typing import Any

from playwright.sync_api import Browser, Page

from tests.support.browser import IN_CHROMIUM, OtherUser
from tests.support.postgres import temporary_folder
from tests.support.server import ServedHub, reserved_port

pytestmark = IN_CHROMIUM

# As docs/reference/subscriptions.md describes: on an error close, request another ticket, resume after the last id.
FOLLOW = """token => {
    window.received = [];
    window.opened = 0;
    const query = `subscription ($after: String) {
        stream(after: $after) { __typename cursor ... on EventRecorded { event { id } } }
    }`;
    let after = null;
    async function ticket() {
        const response = await fetch("/graphql", {
            method: "POST",
            headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
            body: JSON.stringify({ query: "mutation { createStreamTicket { ticket } }" }),
        });
        return (await response.json()).data.createStreamTicket.ticket;
    }
    async function follow() {
        try {
            const parameters = { ticket: await ticket(), query, variables: JSON.stringify({ after }) };
            const events = new EventSource(`/graphql?${new URLSearchParams(parameters)}`);
            events.addEventListener("open", () => { window.opened += 1; });
            events.addEventListener("next", ({ data, lastEventId }) => {
                after = lastEventId || after;
                window.received.push(JSON.parse(data).data.stream);
            });
            events.addEventListener("error", () => {
                events.close();
                setTimeout(follow, 300);
            });
        } catch {
            setTimeout(follow, 300);
        }
    }
    follow();
}"""


def received_ids(page: Page, count: int) -> list[str]:
    """Waits until the page has received `count` events and returns their ids."""
    expression = "window.received.filter(frame => frame.__typename === 'EventRecorded').map(frame => frame.event.id)"
    page.wait_for_function(f"count => {expression}.length >= count", arg=count, timeout=30_000)
    ids: list[str] = page.evaluate(expression)
    return ids


def until_opened(page: Page, times: int) -> None:
    """Waits until the page has opened that many streams and received a frame."""
    page.wait_for_function("times => window.opened >= times && window.received.length", arg=times, timeout=30_000)


def test_event_source_resumes_after_a_crash(browser: Browser):
    addresses: list[str] = []
    with temporary_folder() as folder, reserved_port() as port:
        hub = ServedHub.start(folder / "data", port=port)
        try:
            page = browser.new_page()
            page.on("request", lambda request: addresses.append(request.url))
            page.goto(hub.url)
            other_user = OtherUser(hub)
            page.evaluate(FOLLOW, other_user.token)
            until_opened(page, 1)
            recorded = [other_user.record("before") for _ in range(5)]
            assert received_ids(page, 5) == recorded
            hub.kill()
            hub = ServedHub.start(folder / "data", port=port)
            recorded += [other_user.record("after") for _ in range(5)]
            assert received_ids(page, 10) == recorded
            until_opened(page, 2)
            _check_offline_events(page, other_user, recorded)
        finally:
            hub.stop()
    assert not [address for address in addresses if other_user.token in address]


def _check_offline_events(page: Page, other_user: OtherUser, recorded: list[str]) -> None:
    """Checks that events recorded while the browser is offline arrive once it is online again."""
    page.context.set_offline(True)
    recorded += [other_user.record("away") for _ in range(5)]
    page.context.set_offline(False)
    assert received_ids(page, 15) == recorded


def test_ticket_opens_only_one_stream(browser: Browser):
    with temporary_folder() as folder:
        hub = ServedHub.start(folder / "data")
        try:
            page = browser.new_page()
            page.goto(hub.url)
            ticket: str = OtherUser(hub).ask("mutation { createStreamTicket { ticket } }", {})["createStreamTicket"][
                "ticket"
            ]
            states: list[dict[str, Any]] = [page.evaluate(_OPEN, ticket) for _ in range(2)]
        finally:
            hub.stop()
    assert states == [{"opened": True, "state": 1}, {"opened": False, "state": 2}]


# Opens an EventSource with a ticket and reports its state: 1 is open, 2 is closed.
_OPEN = """ticket => new Promise(done => {
    const query = "subscription { stream { cursor } }";
    const events = new EventSource(`/graphql?${new URLSearchParams({ ticket, query })}`);
    events.onopen = () => done({ opened: true, state: events.readyState });
    events.onerror = () => done({ opened: false, state: events.readyState });
})"""
