"""GraphQL documents: text to parsed, bounded and validated, kept by their text."""

from collections import OrderedDict
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from xzepr.api.errors import DocumentTooComplex, OperationNotFound
from xzepr.api.graphql.problems import not_parsed, not_valid

_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
_MAX_LEVELS = 300
_MAX_ERRORS = 50


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """What a document may be at most; whatever fragments hold counts wherever they are used."""

    max_chars: int = 100_000
    max_tokens: int = 10_000
    max_depth: int = 30
    """Fields within fields."""
    max_aliases: int = 500
    max_fields: int = 10_000


@dataclass(frozen=True, slots=True)
class Document:
    """A document within the limits, not necessarily valid."""

    text: str
    node: DocumentNode
    operations: tuple[OperationDefinitionNode, ...]
    fragments: dict[str, FragmentDefinitionNode]

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


def is_subscription(operation: OperationDefinitionNode) -> bool:
    """Whether the operation answers more than once."""
    return operation.operation is OperationType.SUBSCRIPTION


class Documents:
    """Documents that were found valid for one schema, least recently used first out.

    At most `cache_size` of them and `cache_size` times 2,000 characters, so that long ones cannot fill the memory.
    """

    def __init__(self, schema: GraphQLSchema, limits: DocumentLimits, cache_size: int = 1000) -> None:
        self._schema = schema
        self._limits = limits
        self._valid: OrderedDict[str, Document] = OrderedDict()
        self._cache_size = cache_size
        self._max_chars = cache_size * 2000
        self._chars = 0

    def parsed(self, text: str) -> Document:
        """The document of a text. Raises DocumentTooComplex or DocumentNotParsed."""
        if (known := self._valid.get(text)) is not None:
            self._valid.move_to_end(text)
            return known
        if len(text) > self._limits.max_chars:
            raise DocumentTooComplex(f"the document is longer than {self._limits.max_chars} characters")
        document = _parse(text, self._limits)
        _Measure(document, self._limits).check()
        return document

    def must_be_valid(self, document: Document) -> None:
        """Raises DocumentNotValid unless the document fits the schema; remembers one that does."""
        if document.text in self._valid:
            return
        errors = validate(self._schema, document.node, _RULES, max_errors=_MAX_ERRORS)
        if errors:
            raise not_valid(errors)
        self._remember(document)

    def _remember(self, document: Document) -> None:
        self._valid[document.text] = document
        self._chars += len(document.text)
        while len(self._valid) > self._cache_size or self._chars > self._max_chars:
            text, _ = self._valid.popitem(last=False)
            self._chars -= len(text)


def _parse(text: str, limits: DocumentLimits) -> Document:
    try:
        node = parse(text, max_lexical_tokens=limits.max_tokens, max_comments=limits.max_tokens)
    except GraphQLError as error:
        if "Document contains more than" in error.message:
            raise DocumentTooComplex(f"the document has more than {limits.max_tokens} tokens or comments") from None
        raise not_parsed(error) from None
    operations = tuple(d for d in node.definitions if isinstance(d, OperationDefinitionNode))
    fragments = {d.name.value: d for d in node.definitions if isinstance(d, FragmentDefinitionNode)}
    return Document(text, node, operations, fragments)


@dataclass(frozen=True, slots=True)
class _Size:
    depth: int
    aliases: int
    fields: int


class _Measure:
    """One pass over a document that looks at each selection once: a fragment's size is kept after the first visit."""

    def __init__(self, document: Document, limits: DocumentLimits) -> None:
        self._document = document
        self._limits = limits
        self._fragments: dict[str, _Size] = {}

    def check(self) -> None:
        """Raises DocumentTooComplex when an operation or a fragment is beyond the limits."""
        for definition in (*self._document.operations, *self._document.fragments.values()):
            self._within_limits(self._selections(definition.selection_set, 0))

    def _within_limits(self, size: _Size) -> None:
        limits = self._limits
        for what, found, most in (
            ("nests fields deeper than", size.depth, limits.max_depth),
            ("has, fragments followed, more aliases than", size.aliases, limits.max_aliases),
            ("has, fragments followed, more fields than", size.fields, limits.max_fields),
        ):
            if found > most:
                raise DocumentTooComplex(f"the document {what} {most}")

    def _selections(self, selections: SelectionSetNode, level: int) -> _Size:
        if level > _MAX_LEVELS:
            raise DocumentTooComplex(f"the document nests selections and fragments deeper than {_MAX_LEVELS}")
        depth = aliases = fields = 0
        for selection in selections.selections:
            if isinstance(selection, FieldNode):
                inner = self._selections(selection.selection_set, level + 1) if selection.selection_set else _NOTHING
                size = _Size(inner.depth + 1, inner.aliases + (selection.alias is not None), inner.fields + 1)
            elif isinstance(selection, FragmentSpreadNode):
                size = self._fragment(selection.name.value, level + 1)
            elif isinstance(selection, InlineFragmentNode):
                size = self._selections(selection.selection_set, level + 1)
            else:
                continue
            depth = max(depth, size.depth)
            aliases += size.aliases
            fields += size.fields
        # Sums double with each level of doubled fragments: capped, so that they stay small numbers.
        return _Size(depth, min(aliases, _PLENTY), min(fields, _PLENTY))

    def _fragment(self, name: str, level: int) -> _Size:
        known = self._fragments.get(name)
        if known is not None:
            return known
        fragment = self._document.fragments.get(name)
        if fragment is None:
            return _NOTHING
        self._fragments[name] = _NOTHING  # a cycle ends here; validation names it
        size = self._fragments[name] = self._selections(fragment.selection_set, level)
        return size


_NOTHING = _Size(0, 0, 0)
_PLENTY = 10**9
