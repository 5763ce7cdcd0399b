"""Parses, limits and validates GraphQL documents, and caches them by their text."""

from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from xzepr.api.errors import DocumentTooComplex, OperationNotFound
from xzepr.api.graphql_server.complexity import DocumentLimits, check_limits
from xzepr.api.graphql_server.errors import MAX_ERRORS, parse_error, unexplained, validation_error
from xzepr.api.graphql_server.plans.plan import Plan
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.core.lru_cache import LRUCache

_CACHED_CHARS = 2000  # per cached document, on average
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document within the limits. It is not necessarily valid."""

    text: str
    node: DocumentNode
    operations: tuple[OperationDefinitionNode, ...]
    fragments: dict[str, FragmentDefinitionNode]
    plans: dict[int, Plan] = field(default_factory=lambda: dict[int, Plan]())
    """The plans of the operations that were executed, by the `id()` of their nodes."""
    found: dict[str | None, tuple[OperationDefinitionNode, str]] = field(
        default_factory=lambda: dict[str | None, tuple[OperationDefinitionNode, str]]()
    )
    """The operations that were requested, by their names; see `operation`."""

    def plan(
        self, schema: GraphQLSchema, operation: OperationDefinitionNode, rendered: RenderedObjects | None = None
    ) -> Plan:
        """Returns the plan of one of its operations, for the schema against which the document was validated."""
        if (plan := self.plans.get(id(operation))) is None:
            plan = self.plans[id(operation)] = Plan(schema, self.node, operation, rendered)
        return plan

    def operation(self, name: str | None) -> tuple[OperationDefinitionNode, str]:
        """Returns the operation of that name, or the only one if `name` is None, and its type such as `query`.

        Raises OperationNotFound.
        """
        if (found := self.found.get(name)) is None:
            node = self._find(name)
            found = self.found[name] = node, node.operation.value
        return found

    def _find(self, name: str | None) -> OperationDefinitionNode:
        matching = [op for op in self.operations if name is None or (op.name and op.name.value == name)]
        if not matching:
            raise OperationNotFound(
                "the document has no operation" if name is None else f"the document has no operation named {name!r}"
            )
        if name is None and len(matching) > 1:
            raise OperationNotFound("the document has several operations: name one in operationName")
        return matching[0]

    def only_root_field(self, operation: OperationDefinitionNode) -> str | None:
        """Returns the schema's name of the operation's root field; None if there are several, or a fragment."""
        first, *others = operation.selection_set.selections
        return first.name.value if isinstance(first, FieldNode) and not others else None

    def root_fields(self, operation: OperationDefinitionNode) -> frozenset[str]:
        """Returns the schema's names of the operation's root fields, including those in fragments."""
        names: set[str] = set()
        visited: set[str] = set()
        unvisited = [operation.selection_set]
        while unvisited:
            for selection in unvisited.pop().selections:
                if isinstance(selection, FieldNode):
                    names.add(selection.name.value)
                elif isinstance(selection, InlineFragmentNode):
                    unvisited.append(selection.selection_set)
                elif isinstance(selection, FragmentSpreadNode):
                    name = selection.name.value
                    if name not in visited and name in self.fragments:
                        visited.add(name)
                        unvisited.append(self.fragments[name].selection_set)
        return frozenset(names)


class Documents:
    """Parses and validates documents for one schema, and caches the valid ones.

    The cache holds at most `cache_size` documents and `cache_size` times 2,000 characters, so that long documents
    cannot fill the memory.
    """

    def __init__(self, schema: GraphQLSchema, limits: DocumentLimits, cache_size: int = 1000) -> None:
        self._schema = schema
        self._limits = limits
        self._valid = LRUCache[str, Document](
            cache_size, max_size=cache_size * _CACHED_CHARS, size_of=lambda document: len(document.text)
        )

    def parse(self, text: str) -> Document:
        """Returns the document of a text. Raises DocumentTooComplex or DocumentNotParsed."""
        if (cached := self._valid.get(text)) is not None:
            return cached
        if len(text) > self._limits.max_chars:
            raise DocumentTooComplex(f"the document is longer than {self._limits.max_chars} characters")
        document = _parse(text, self._limits)
        check_limits(self._limits, document.operations, document.fragments)
        return document

    def validate(self, document: Document, *, anonymous: bool = False) -> None:
        """Raises DocumentNotValid unless the document fits the schema. A valid document is cached.

        A document of an anonymous caller is not cached, because it could evict all others. Its error does not name what
        is wrong, because the names in the schema are for those who may read it.
        """
        if document.text in self._valid:
            return
        errors = validate(self._schema, document.node, _RULES, max_errors=MAX_ERRORS)
        if errors:
            problem = validation_error(errors)
            raise unexplained(problem) if anonymous else problem
        if not anonymous:
            self._valid.put(document.text, document)


def _parse(text: str, limits: DocumentLimits) -> Document:
    try:
        node = parse(text, max_lexical_tokens=limits.max_tokens, max_comments=limits.max_tokens)
    except GraphQLError as error:
        if "Document contains more than" in error.message:
            raise DocumentTooComplex(f"the document has more than {limits.max_tokens} tokens or comments") from None
        raise parse_error(error) from None
    operations = tuple(d for d in node.definitions if isinstance(d, OperationDefinitionNode))
    fragments = {d.name.value: d for d in node.definitions if isinstance(d, FragmentDefinitionNode)}
    return Document(text, node, operations, fragments)
