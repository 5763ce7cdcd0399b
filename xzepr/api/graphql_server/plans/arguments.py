"""Arguments of the fields of a document, as a plan passes them to resolvers."""

from typing import Any, cast

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLNonNull,
    ListValueNode,
    ObjectValueNode,
    Undefined,
    ValueNode,
    VariableNode,
)
from graphql.execution.values import VariableValues, get_argument_values

from xzepr.api.graphql_server.plans.conversions import IMMUTABLE, NotPlain
from xzepr.api.graphql_server.plans.variables import RequestVariables

_NO_VARIABLES = VariableValues({}, {})


class Arguments:
    """The arguments of one field of a document."""

    def __init__(self, field: GraphQLField, node: FieldNode) -> None:
        self._field = field
        self._node = node
        nodes = {argument.name.value: argument.value for argument in node.arguments or ()}
        constants: dict[str, object] = {}
        self._variables: list[tuple[str, str, bool, object]] | None = []
        """The Python name, variable, non-null and default of arguments; None if graphql-core has to coerce them all."""
        literals = {name: value for name, value in nodes.items() if not isinstance(value, VariableNode)}
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
        if not all(isinstance(value, IMMUTABLE) for value in (*constants.values(), *defaults)):
            self._variables = None  # a resolver could change its arguments, so each call gets its own
        self._constants = constants

    def values(self, variables: RequestVariables) -> dict[str, Any]:
        """Returns the arguments by their Python names, for one call. Raises if graphql-core has to report an error."""
        if self._variables is None:
            return get_argument_values(self._field, self._node, variables.for_core())
        arguments = self._constants.copy()
        for out_name, name, non_null, default in self._variables:
            if name in variables:
                if (value := variables.get(name)) is None and non_null:
                    raise NotPlain
                arguments[out_name] = value
            elif default is not Undefined:
                arguments[out_name] = default
            elif non_null:
                raise NotPlain
        return arguments

    def _literals(self, literals: dict[str, ValueNode]) -> dict[str, object]:
        """Returns the literal arguments by their Python names; an unshareable value if one has a variable inside."""
        if not literals:
            return {}
        if any(map(_has_variable, literals.values())):
            return {"": _Unknown}
        alone = GraphQLField(cast(Any, self._field).type, {name: self._field.args[name] for name in literals})
        try:
            return get_argument_values(alone, self._node, _NO_VARIABLES)
        except Exception:
            return {"": _Unknown}


class _Unknown:
    """Stands for a value that is known only when the field is called."""


def _has_variable(node: ValueNode) -> bool:
    match node:
        case VariableNode():
            return True
        case ListValueNode():
            return any(map(_has_variable, node.values))
        case ObjectValueNode():
            return any(_has_variable(field.value) for field in node.fields)
        case _:
            return False
