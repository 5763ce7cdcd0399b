"""The reference page of the command line matches the commands."""

from tests.contract.command_line_page import PAGE, with_generated_part


def test_command_line_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_generated_part(page), "run `python -m tests.contract.command_line_page`"
