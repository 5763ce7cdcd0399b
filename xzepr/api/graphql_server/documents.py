"""GraphQL documents: text to parsed, bounded and validated, kept by their text."""

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
from xzepr.api.graphql_server.errors import MAX_ERRORS, parse_error, validation_error
from xzepr.api.graphql_server.plan import Plan
from xzepr.core.lru_cache import LRUCache

_CACHED_CHARS = 2000  # per cached document, on average
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Document:
    """A document within the limits, not necessarily valid."""

    text: str
    node: DocumentNode
    operations: tuple[OperationDefinitionNode, ...]
    fragments: dict[str, FragmentDefinitionNode]
    plans: dict[int, Plan] = field(default_factory=lambda: dict[int, Plan]())
    """Of the operations that were executed, by the identity of their nodes."""

    def plan(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> Plan:
        """How to execute one of its operations; the schema is the one that it was found valid for."""
        if (plan := self.plans.get(id(operation))) is None:
            plan = self.plans[id(operation)] = Plan(schema, self.node, operation)
        return plan

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The operation of that name, or the only one. Raises OperationNotFound."""
        named = [op for op in self.operations if name is None or (op.name and op.name.value == name)]
        if not named:
            raise OperationNotFound(
                "the document holds no operation" if name is None else f"the document holds no operation named {name!r}"
            )
        if name is None and len(named) > 1:
            raise OperationNotFound("the document holds several operations: name one in operationName")
        return named[0]

    def root_fields(self, operation: OperationDefinitionNode) -> frozenset[str]:
        """Names of the fields at the operation's root, as the schema has them, fragments followed."""
        found: set[str] = set()
        seen: set[str] = set()
        todo = [operation.selection_set]
        while todo:
            for selection in todo.pop().selections:
                if isinstance(selection, FieldNode):
                    found.add(selection.name.value)
                elif isinstance(selection, InlineFragmentNode):
                    todo.append(selection.selection_set)
                elif isinstance(selection, FragmentSpreadNode):
                    name = selection.name.value
                    if name not in seen and name in self.fragments:
                        seen.add(name)
                        todo.append(self.fragments[name].selection_set)
        return frozenset(found)


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

    def validate(self, document: Document, *, cache: bool = True) -> None:
        """Raises DocumentNotValid unless the document fits the schema. A valid document is cached if `cache` is set."""
        if document.text in self._valid:
            return
        errors = validate(self._schema, document.node, _RULES, max_errors=MAX_ERRORS)
        if errors:
            raise validation_error(errors)
        if cache:
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
