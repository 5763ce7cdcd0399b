"""Scalars of hub files have the types of YAML 1.2's core schema, and only values that JSON has."""

from pathlib import Path
from typing import cast

import pytest

from xzepr.cli.yaml_reader import YamlReader
from xzepr.core.errors import CannotStart


def _read(path: Path, text: str) -> object:
    path.write_text(text)
    reader = YamlReader(path)
    value = reader.value(reader.root(), "")
    reader.raise_mistakes()
    return value


def test_scalars_have_the_types_of_the_core_schema(tmp_path: Path) -> None:
    text = "[0x1F, 0o17, 010, -7, 1.5, 1e3, .5, true, no, on, 2026-11-20, 1_000, 0b1, ~, '0x1F']"
    expected = [31, 15, 10, -7, 1.5, 1000.0, 0.5, True, "no", "on", "2026-11-20", "1_000", "0b1", None, "0x1F"]
    value = _read(tmp_path / "hub.yaml", text)
    assert value == expected
    assert [type(item) for item in cast("list[object]", value)] == [type(item) for item in expected]


@pytest.mark.parametrize("number", [".inf", "-.INF", "+.Inf", ".nan", ".NaN", "1e999"])
def test_number_that_json_lacks_is_a_mistake(number: str, tmp_path: Path) -> None:
    with pytest.raises(CannotStart) as caught:
        _read(tmp_path / "hub.yaml", f"schema: {{maximum: {number}}}")
    assert f":1: schema.maximum: JSON has no {number}" in str(caught.value)
