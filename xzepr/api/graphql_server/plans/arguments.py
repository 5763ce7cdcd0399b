"""Arguments of the fields of a document, as a plan passes them to resolvers."""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, cast

from graphql import FieldNode, GraphQLField, GraphQLNonNull, Undefined, VariableNode
from graphql.execution.values import VariableValues, get_argument_values

from xzepr.api.graphql_server.plans.conversions import NotPlain
from xzepr.api.graphql_server.plans.variables import RequestVariables

# Values that all calls may share. Others are converted for each call, because a resolver could change them.
_IMMUTABLE = (str, bool, int, float, datetime, Enum, type(None))
_NO_VARIABLES = VariableValues({}, {})

_Read = Callable[[RequestVariables], object]  # returns Undefined for an argument that is left out


class Arguments:
    """The arguments of one field of a document."""

    def __init__(self, field: GraphQLField, node: FieldNode) -> None:
        self._field = field
        self._node = node
        nodes = {argument.name.value: argument.value for argument in node.arguments or ()}
        constants: dict[str, object] = {}
        self._variables: list[tuple[str, str, bool, object]] | None = []
        """The Python name, variable, non-null and default of arguments; None if graphql-core has to coerce them all."""
        literals = [name for name, value in nodes.items() if not isinstance(value, VariableNode)]
        for name, argument in field.args.items():
            out_name = argument.out_name or name
            value = nodes.get(name)
            default = argument.default_value if argument.default is None else _Unknown
            if isinstance(value, VariableNode):
                variable = (out_name, value.name.value, isinstance(cast(Any, argument).type, GraphQLNonNull), default)
                self._variables.append(variable)
            elif value is None and default is not Undefined:
                constants[out_name] = default
        constants |= self._literals(literals)
        defaults = [default for *_, default in self._variables]
        if not all(_is_shareable(value) for value in (*constants.values(), *defaults)):
            self._variables = None
        self._constants = constants

    def values(self, variables: RequestVariables) -> dict[str, Any]:
        """Returns the arguments by their Python names, for one call. Raises if graphql-core has to report an error."""
        if self._variables is None:
            return get_argument_values(self._field, self._node, variables.values())
        arguments = self._constants.copy()
        coerced = variables.coerced
        for out_name, name, non_null, default in self._variables:
            if name in coerced:
                if (value := coerced[name]) is None and non_null:
                    raise NotPlain
                arguments[out_name] = value
            elif default is not Undefined:
                arguments[out_name] = default
            elif non_null:
                raise NotPlain
        return arguments

    def _literals(self, names: list[str]) -> dict[str, object]:
        """Returns the literal arguments by their Python names; an unshareable value if one has a variable inside."""
        if not names:
            return {}
        alone = GraphQLField(cast(Any, self._field).type, {name: self._field.args[name] for name in names})
        try:
            return get_argument_values(alone, self._node, _NO_VARIABLES)
        except Exception:
            return {names[0]: _Unknown}


class _Unknown:
    """Stands for a value that is known only when the field is called."""


def _is_shareable(value: object) -> bool:
    return value is Undefined or isinstance(value, _IMMUTABLE)
