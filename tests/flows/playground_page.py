"""A visit to the playground in a real browser, with all that the page asked for, sent and complained about."""

import re
from dataclasses import dataclass, field

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, WebSocket, expect

_BEARER = re.compile(r"Bearer ([\w.-]+)")
_ID = re.compile(r'"id": "([0-9A-HJKMNP-TV-Z]{26})"')
# Control+V returns before the browser has read the clipboard; this returns when the editor has the text.
_PASTE = """text => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
}"""


@dataclass  # without slots: Playwright keeps what it wraps a listener in beside it
class Visit:
    """One page. Addresses are as they were asked for, `tokens` what went with them, `sent` the WebSocket's frames."""

    page: Page
    hub: str
    password: str
    addresses: list[str] = field(default_factory=list[str])
    tokens: set[str] = field(default_factory=set[str])
    sent: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])

    def begin(self) -> None:
        """Open the page, listening."""
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("websocket", self._websocket)
        self.page.goto(f"{self.hub}/graphql/playground")

    def _request(self, request: Request) -> None:
        self.addresses.append(request.url)
        self.tokens.update(_BEARER.findall(request.headers.get("authorization", "")))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in {"info", "debug", "log"}:
            self.complaints.append(message.text)

    def _websocket(self, socket: WebSocket) -> None:
        self.addresses.append(socket.url)
        socket.on("framesent", lambda frame: self.sent.append(str(frame)))

    @property
    def status(self) -> Locator:
        """Who the bar says is signed in."""
        return self.page.get_by_role("status").filter(has_text="igned in")

    @property
    def answer(self) -> Locator:
        """The result of what was run last."""
        return self.page.locator(".result-window .view-lines")

    @property
    def dialog(self) -> Locator:
        """The sign-in."""
        return self.page.get_by_role("dialog")

    def fill_in(self, username: str, password: str) -> None:
        """Fill in the dialog and send it."""
        self.page.get_by_label("User name").fill(username)
        self.page.get_by_role("textbox", name="Password").fill(password)
        self.dialog.get_by_role("button", name="Sign in").click()

    def sign_in(self, username: str = "admin", password: str | None = None) -> None:
        """Sign in, the admin unless told otherwise, and be it."""
        self.fill_in(username, password or self.password)
        expect(self.status).to_contain_text(f"Signed in as {username} until")

    def decline(self) -> None:
        """Put the sign-in dialog away."""
        self.page.get_by_role("button", name="Not now").click()

    def sign_out(self) -> None:
        """Sign out, and be nobody."""
        self.page.get_by_role("button", name="Sign out").click()
        expect(self.status).to_have_text("Not signed in")

    def write(self, document: str) -> None:
        """Put a document into a new tab."""
        self.page.get_by_role("button", name="New tab").click()
        self.page.locator(".graphiql-query-editor textarea").first.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(document)

    def execute(self) -> None:
        """Run what is in this tab."""
        self.page.get_by_role("button", name="Execute query").click()

    def show(self, tab: str) -> None:
        """Turn to one of the examples."""
        self.page.get_by_role("tablist").get_by_role("button", name=tab, exact=True).click()
        expect(self.page.locator(".graphiql-query-editor .view-lines")).to_contain_text(tab)

    def replace(self, placeholder: str, text: str) -> None:
        """Paste what this tab's variables ask for, where they ask for it."""
        self.page.locator(".graphiql-editor-tool textarea").first.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Control+C")
        variables = str(self.page.evaluate("navigator.clipboard.readText()"))
        assert placeholder in variables
        self.page.evaluate(_PASTE, variables.replace(placeholder, text))

    def answered_id(self) -> str:
        """The first id in the answer, which must have one."""
        expect(self.answer).to_contain_text('"id"')
        found = _ID.search(self.answer.inner_text().replace("\xa0", " "))
        assert found, self.answer.inner_text()
        return found[1]

    def kept(self) -> str:
        """All that the browser would still have after the visit."""
        found = self.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
        return f"{found} {self.page.context.cookies()}"
