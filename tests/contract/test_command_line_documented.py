"""The reference page of the command line is what the commands themselves say."""

from tests.contract.command_line_page import PAGE, written


def test_command_line_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run `python -m tests.contract.command_line_page`"
