"""`xzepr apply` makes the hub match a file, once. A mistake in the file changes nothing."""

from pathlib import Path

import pytest

from tests.support.command_line import CommandLineUser, CommandResult
from tests.support.server import ROOT

FILE = """
receivers:
  - {name: NAME-build, type: stage, version: "1", description: It was built, schema: {type: object}}
  - name: NAME-test
    type: stage
    version: "1"
    description: Tests ran
    enabled: true
    schema:
      properties:
        on: {type: boolean}
        since: {const: 2026-11-20}
groups:
  - name: NAME-gate
    type: gate
    version: "1"
    description: May be released
    receivers:
      - NAME-build
      - {name: NAME-test, type: stage, version: "1"}
"""

CREATE = "mutation ($input: CreateEventReceiverInput!) { createEventReceiver(input: $input) { eventReceiver { id } } }"
NAMED = "query ($name: String) { eventReceivers(filter: {name: $name}) { nodes { id } } }"


def apply(admin: CommandLineUser, text: str, *options: str) -> CommandResult:
    """Runs `xzepr apply` on a file with this text."""
    (admin.folder / "hub.yaml").write_text(text)
    return admin("apply", "-f", "hub.yaml", *options)


def actions(result: CommandResult) -> list[str]:
    """Returns the action for each receiver and group."""
    assert result.code == 0, result.err
    return [change["action"] for change in result.json]


@pytest.fixture
def text(request: pytest.FixtureRequest) -> str:
    """The file, with names that are unique to the test."""
    return FILE.replace("NAME", request.node.name.removeprefix("test_")[:60])


def test_second_apply_changes_nothing(admin: CommandLineUser, text: str) -> None:
    assert actions(apply(admin, text, "--json")) == ["create"] * 3
    assert actions(apply(admin, text, "--json")) == ["keep"] * 3


def test_dry_run_shows_the_plan_without_changes(admin: CommandLineUser, text: str) -> None:
    for _ in range(2):
        assert actions(apply(admin, text, "--dry-run", "--json")) == ["create"] * 3
    assert actions(apply(admin, text, "--json")) == ["create"] * 3
    changed = text.replace("Tests ran", "All tests ran").replace("type: boolean", "type: string")
    plan = apply(admin, changed, "--dry-run").out
    assert 'description: "Tests ran" → "All tests ran"' in plan
    assert '-      "type": "boolean"' in plan
    assert "Would be: 0 created, 1 updated, 2 unchanged." in plan
    assert actions(apply(admin, text, "--dry-run", "--json")) == ["keep"] * 3
    assert actions(apply(admin, changed, "--json")) == ["keep", "update", "keep"]


def test_order_counts_for_members_but_not_schema_keys(admin: CommandLineUser, text: str) -> None:
    text = text.replace("schema: {type: object}", "schema: {type: object, title: a}")
    apply(admin, text)
    assert (
        actions(apply(admin, text.replace("type: object, title: a", "title: a, type: object"), "--json"))[0] == "keep"
    )
    head, members = text.split("      - ", 1)
    first, second = members.split("      - ")
    reordered = f"{head}      - {second}      - {first}"
    change = apply(admin, reordered, "--json").json[2]
    assert change["differences"][0]["before"] == list(reversed(change["differences"][0]["after"]))


def test_member_may_exist_only_on_the_hub(admin: CommandLineUser, text: str) -> None:
    receivers, groups = text.split("groups:")
    apply(admin, receivers)
    assert actions(apply(admin, f"groups:{groups}", "--json")) == ["create"]


def test_unknown_member_is_rejected_before_any_change(admin: CommandLineUser, text: str) -> None:
    head, members = text.split("      - ", 1)
    result = apply(admin, f"{head}      - missing\n      - {members}")
    assert (result.code, result.out) == (1, "")
    assert "hub.yaml:19: the hub has no receiver 'missing', and the file has none" in result.err
    assert actions(apply(admin, text, "--dry-run", "--json")) == ["create"] * 3


def test_apply_resumes_after_a_rejected_receiver(admin: CommandLineUser, text: str) -> None:
    result = apply(admin, text.replace("{type: boolean}", "{type: bool}"))
    assert result.code == 1
    assert "receiver apply_resumes_after_a_rejected_receiver" in result.err
    assert "1 changed before this error" in result.err
    assert actions(apply(admin, text, "--json")) == ["keep", "create", "create"]


def test_ambiguous_key_on_the_hub_is_an_error(admin: CommandLineUser, text: str) -> None:
    apply(admin, text)
    name = text.split("name: ", 1)[1].split(",")[0]
    twin: dict[str, object] = {"name": name, "type": "stage", "version": "1", "description": "twin", "schema": {}}
    admin.ask(CREATE, input=twin)
    result = apply(admin, text)
    assert result.code == 1
    assert "the hub has 2 receivers" in result.err


MISTAKES = {
    "unknown key": (
        "    enabled: true\n",
        "    enable: true\n",
        "7: receivers[1].enable: 'enable' is not known here: did you mean enabled?",
    ),
    "number for text": (
        'version: "1"\n    description: Tests',
        "version: 1.0\n    description: Tests",
        '5: receivers[1].version: this must be a string: put it in quotes ("1.0")',
    ),
    "missing": ("    description: Tests ran\n", "", "3: receivers[1]: description is missing"),
    "no flag": ("enabled: true", "enabled: yes", "7: receivers[1].enabled: this must be true or false"),
    "no schema": (", schema: {type: object}", "", "2: receivers[0]: give either schema or schemaFile"),
    "given twice": (
        "    enabled: true\n",
        "    enabled: true\n    enabled: true\n",
        "8: receivers[1].enabled: this key is given twice",
    ),
    "member": ("      - NAME-build\n", "      - {type: x}\n", "18: groups[0].receivers[0]: name is missing"),
    "too large": ("const: 2026-11-20", "const: 99999999999999999999999", "9: receivers[1].schema: /properties/since"),
    "no file": (
        "schema: {type: object}",
        "schemaFile: none.json",
        "2: receivers[0].schemaFile: none.json cannot be read",
    ),
    "itself": ("{type: object}", "&a {type: object, not: *a}", "2: receivers[0].schema.not: this contains itself"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_reported_with_its_line(admin: CommandLineUser, mistake: str) -> None:
    before, after, message = MISTAKES[mistake]
    text = FILE.lstrip("\n")
    assert before in text
    result = apply(admin, text.replace(before, after, 1).replace("NAME", "mistaken"))
    assert (result.code, result.out) == (1, "")
    assert f"hub.yaml:{message}" in result.err
    assert admin.ask(NAMED, name="mistaken-build") == {"eventReceivers": {"nodes": []}}


def test_all_mistakes_are_reported_together(admin: CommandLineUser) -> None:
    result = apply(admin, "receivers:\n  - {name: 1, type: a, version: b}\ngroup: []\n")
    assert "hub.yaml has 4 mistakes:" in result.err
    assert "did you mean groups?" in result.err


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "\x00"])
def test_malformed_hub_file_is_one_sentence(admin: CommandLineUser, text: str) -> None:
    result = apply(admin, text)
    assert result.code == 1
    assert result.err.startswith("xzepr: hub.yaml")


def test_schema_is_read_from_a_separate_file(admin: CommandLineUser, text: str, tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text('{"type": "object", "required": ["commit"]}')
    changes = apply(admin, text.replace("schema: {type: object}", "schemaFile: build.json"), "--json").json
    schema = {"field": "schema", "before": None, "after": {"type": "object", "required": ["commit"]}}
    assert schema in changes[0]["differences"]


def test_documented_example_applies(admin: CommandLineUser) -> None:
    page = (ROOT / "docs" / "how_to" / "apply_a_hub_file.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    printed = page.split("--dry-run\n")[1].split("```text\n")[1].split("```")[0]
    renamed = example.replace("build", "documented-build").replace("test", "documented-test")
    result = apply(admin, renamed, "--dry-run")
    assert result.out.replace("documented-", "") == printed
