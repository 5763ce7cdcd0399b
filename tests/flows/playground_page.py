"""A page object of the playground in a real browser; it records requests, WebSocket frames and console messages."""

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


@dataclass  # without slots: Playwright stores attributes on objects with listeners
class Visit:
    """One open page.

    `addresses` holds every requested address, `tokens` the bearer tokens sent, and `sent` the frames sent over
    WebSocket."""

    page: Page
    hub: str
    password: str
    addresses: list[str] = field(default_factory=list[str])
    tokens: set[str] = field(default_factory=set[str])
    sent: list[str] = field(default_factory=list[str])
    console_errors: list[str] = field(default_factory=list[str])

    def begin(self) -> None:
        """Attaches the listeners and opens the page."""
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.console_errors.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("websocket", self._websocket)
        self.page.goto(f"{self.hub}/graphql/playground")

    def _request(self, request: Request) -> None:
        self.addresses.append(request.url)
        self.tokens.update(_BEARER.findall(request.headers.get("authorization", "")))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in {"info", "debug", "log"}:
            self.console_errors.append(message.text)

    def _websocket(self, socket: WebSocket) -> None:
        self.addresses.append(socket.url)
        socket.on("framesent", lambda frame: self.sent.append(str(frame)))

    @property
    def status(self) -> Locator:
        """The sign-in status in the bar."""
        return self.page.get_by_role("status").filter(has_text="igned in")

    @property
    def response(self) -> Locator:
        """The response to the last operation."""
        return self.page.locator(".result-window .view-lines")

    @property
    def dialog(self) -> Locator:
        """The sign-in dialog."""
        return self.page.get_by_role("dialog")

    def fill_in(self, username: str, password: str) -> None:
        """Fills in the dialog and submits it."""
        self.page.get_by_label("User name").fill(username)
        self.page.get_by_role("textbox", name="Password").fill(password)
        self.dialog.get_by_role("button", name="Sign in").click()

    def sign_in(self, username: str = "admin", password: str | None = None) -> None:
        """Signs in, by default as admin, and waits until the page shows it."""
        self.fill_in(username, password or self.password)
        expect(self.status).to_contain_text(f"Signed in as {username} until")

    def decline(self) -> None:
        """Closes the sign-in dialog."""
        self.page.get_by_role("button", name="Not now").click()

    def sign_out(self) -> None:
        """Signs out and waits until the page shows it."""
        self.page.get_by_role("button", name="Sign out").click()
        expect(self.status).to_have_text("Not signed in")

    def write(self, document: str) -> None:
        """Writes a document into a new tab."""
        self.page.get_by_role("button", name="New tab").click()
        self.page.locator(".graphiql-query-editor textarea").first.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(document)

    def execute(self) -> None:
        """Executes the document of the current tab."""
        self.page.get_by_role("button", name="Execute query").click()

    def show(self, tab: str) -> None:
        """Opens the tab of one of the examples."""
        self.page.get_by_role("tablist").get_by_role("button", name=tab, exact=True).click()
        expect(self.page.locator(".graphiql-query-editor .view-lines")).to_contain_text(tab)

    def replace(self, placeholder: str, text: str) -> None:
        """Replaces a placeholder in the current tab's variables."""
        self.page.locator(".graphiql-editor-tool textarea").first.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Control+C")
        variables = str(self.page.evaluate("navigator.clipboard.readText()"))
        assert placeholder in variables
        self.page.evaluate(_PASTE, variables.replace(placeholder, text))

    def response_id(self) -> str:
        """Returns the first id in the response; the response must have one."""
        expect(self.response).to_contain_text('"id"')
        match = _ID.search(self.response.inner_text().replace("\xa0", " "))
        assert match, self.response.inner_text()
        return match[1]

    def stored_data(self) -> str:
        """Returns everything that the browser still stores after the page closes."""
        storage = self.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
        return f"{storage} {self.page.context.cookies()}"
