"""Execution plans: decisions that graphql-core repeats for every request, made once for each operation."""

from collections.abc import Iterator

from graphql import (
    DirectiveNode,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.collect_fields import FragmentDetails

from xzepr.api.graphql_server.plans.arguments import Arguments
from xzepr.api.graphql_server.plans.compiler import Compiler, NotCompiled
from xzepr.api.graphql_server.plans.levels import Plain
from xzepr.api.graphql_server.plans.program import Program, Root
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.api.graphql_server.plans.resolvers import call_of, itself, reader_of
from xzepr.api.graphql_server.plans.variables import RequestVariables, Variables
from xzepr.core.lru_cache import LRUCache

_MAX_PROGRAMS = 16  # of one operation: combinations of the variables in its directives
_SELECTION_DIRECTIVES = frozenset({"skip", "include"})


class Plan:
    """The plan of one operation, whose document is valid for the schema."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        rendered: RenderedObjects | None = None,
    ) -> None:
        """`rendered` has the types whose objects never change; None if the schema has no such types."""
        self.schema = schema
        self.operation = operation
        self.fragment_definitions = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self.fragments = {name: FragmentDetails(node) for name, node in self.fragment_definitions.items()}
        self.variables = Variables(schema, operation)
        self._rendered = rendered or RenderedObjects({})
        # Only directives can make the selections of an operation differ between requests.
        text = "@" if document.loc is None else document.loc.source.body
        directives = _Directives()
        if "@" in text:
            for node in (operation, *self.fragment_definitions.values()):
                visit(node, directives)
        self._directive_variables = sorted(directives.variables)
        self._compiles = not directives.foreign
        self._programs = LRUCache[tuple[object, ...], "Program | NotCompiled"](_MAX_PROGRAMS)

    def program(self, variables: RequestVariables) -> Program | None:
        """Returns the program for a request; None if graphql-core has to execute the operation."""
        if not self._compiles:
            return None
        key = tuple(variables.get(name) for name in self._directive_variables)
        if (program := self._programs.get(key)) is None:
            program = self._compile(variables)
            self._programs.put(key, program)
        return program if isinstance(program, Program) else None

    def _compile(self, variables: RequestVariables) -> "Program | NotCompiled":
        try:
            return self._compiled(variables)
        except (NotCompiled, RecursionError, GraphQLError):  # a directive's variable can be null, which is an error
            return NotCompiled()

    def _compiled(self, variables: RequestVariables, *, denied: bool = False) -> Program:
        values = variables.for_core()
        compiler = Compiler(self.schema, self.fragments, self.operation, values, self._rendered, denied=denied)
        roots, serial = list(self._roots(compiler)), self.operation.operation is OperationType.MUTATION
        if denied or not compiler.guards:
            return Program(roots, serial)
        guards = list(dict.fromkeys(compiler.guards))
        return Program(roots, serial, guards, self._compiled(variables, denied=True))

    def _roots(self, compiler: Compiler) -> Iterator[Root]:
        kind = self.operation.operation
        root_type = self.schema.get_root_type(kind)
        assert root_type is not None, "the document is valid"
        for name, field, selected in compiler.roots(root_type):
            if field is None:
                yield Root(name=name, type_name=root_type.name, level=Plain(itself))
                continue
            level = compiler.root_level(field, selected)
            if kind is OperationType.SUBSCRIPTION:
                if (reader := reader_of(field)) is None:
                    raise NotCompiled
                yield Root(name=name, level=level, read=reader.read)
            elif (call := call_of(field)) is None or call.parent is not None or call.is_batch:
                raise NotCompiled
            else:
                yield Root(name=name, level=level, call=call, arguments=Arguments(field, selected[0].node))


class _Directives(Visitor):
    """Finds the variables in the directives of an operation. graphql-core calls its method by name."""

    def __init__(self) -> None:
        super().__init__()
        self.variables: set[str] = set()
        self.foreign = False
        """Whether a directive is not `@skip` or `@include`."""

    def enter_directive(self, node: DirectiveNode, *_: object) -> None:
        """Adds the variables of a directive."""
        if node.name.value not in _SELECTION_DIRECTIVES:
            self.foreign = True
        for argument in node.arguments or ():
            if isinstance(argument.value, VariableNode):
                self.variables.add(argument.value.name.value)
