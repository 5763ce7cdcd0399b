"""The reference page of the command line is what the commands themselves say."""

from tests.contract.command_line_page import PAGE, written


def test_the_reference_page_is_what_the_commands_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run `python -m tests.contract.command_line_page`"
