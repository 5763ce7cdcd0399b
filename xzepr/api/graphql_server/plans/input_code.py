"""Writes Python functions that convert JSON objects to the instances of input types.

An input of eleven fields takes 1.5 µs with such a function, and 2.7 µs with a function called for each field.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import Undefined

from xzepr.api.graphql_server.plans.conversions import Convert, not_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """A field of an input type."""

    name: str
    out_name: str
    """The name under which the instance gets the value."""
    convert: Convert
    exact: type | None
    """The type of values that are taken as they are, which is then checked inline. None if `convert` is needed."""
    required: bool
    default: object
    """The value of a field that was not sent; Undefined if the instance does not get it."""


def object_function(fields: Sequence[InputField], create: Callable[[dict[str, Any]], object]) -> Convert:
    """Returns the conversion of a JSON object. `create` returns the instance for the values by their out names.

    The conversion raises any Exception for an object that graphql-core has to handle or to report.
    """
    names: dict[str, object] = {"type_of": type, "odd": not_plain, "create": create}
    required = [(index, field) for index, field in enumerate(fields) if field.required]
    optional = [(index, field) for index, field in enumerate(fields) if not field.required]
    lines = ["if type_of(value) is not dict: odd()", f"count = {len(required)}"]
    entries: list[str] = []
    for index, field in required:
        lines.append(f"v{index} = value[{field.name!r}]")
        entries.append(f"{field.out_name!r}: {_value(index, field, names, lines)}")
    lines.append(f"instance = {{{', '.join(entries)}}}")
    for index, field in optional:
        names[f"default{index}"] = field.default
        lines.append(f"if {field.name!r} in value:")
        lines.append(f"    count += 1; v{index} = value[{field.name!r}]")
        inner: list[str] = []
        expression = _value(index, field, names, inner)
        lines += [f"    {line}" for line in (*inner, f"instance[{field.out_name!r}] = {expression}")]
        if field.default is not Undefined:
            lines.append(f"else: instance[{field.out_name!r}] = default{index}")
    lines += ["if count != len(value): odd()", "return create(instance)"]  # an unknown field was sent
    parameters = ", ".join(f"{name}={name}" for name in names)
    source = f"def convert(value, {parameters}):\n" + "".join(f"    {line}\n" for line in lines)
    exec(compile(source, "<input type>", "exec"), names)  # noqa: S102 only the schema's names are in it
    return names["convert"]  # pyright: ignore[reportReturnType] the function that the source defines


def _value(index: int, field: InputField, names: dict[str, object], lines: list[str]) -> str:
    """Returns the expression for a value that was sent. Adds the check of its type to `lines`."""
    if field.exact is None:
        names[f"convert{index}"] = field.convert
        return f"convert{index}(v{index})"
    names[f"type{index}"] = field.exact
    lines.append(f"if type_of(v{index}) is not type{index}: odd()")
    return f"v{index}"
