"""Documents of callers without credentials, checked against the hub's own schema."""

import pytest

from xzepr.api.errors import DocumentNotValid
from xzepr.api.graphql import schema
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.plans.execution import core_schema

MISSPELLED = "mutation ($i: CreateEvntInput!) { login(input: $i) { token } }"
DOCUMENTS = [
    MISSPELLED,
    "mutation ($i: CreateEventInput!) { login(input: $i) { token } }",
    "mutation { login { token } }",
    "mutation { login(input: {usrname: 1}) { token } }",
    'mutation { login(input: {username: "a", password: "b"}) { tokn } }',
    'mutation { login(input: {username: "a", password: "b"}) }',
    "{ __typename } fragment F on Evnt { id }",
    "{ __typename } fragment F on Event { platform }",
]


@pytest.fixture(scope="module")
def documents() -> Documents:
    return Documents(core_schema(schema.build()), DocumentLimits())


@pytest.mark.parametrize("text", DOCUMENTS)
def test_error_for_anonymous_caller_names_nothing(documents: Documents, text: str) -> None:
    with pytest.raises(DocumentNotValid) as invalid:
        documents.validate(documents.parse(text), anonymous=True)
    assert invalid.value.errors == [
        {
            "message": "the document does not match the schema: sign in to see the errors",
            "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"},
        }
    ]


def test_error_for_user_suggests_names(documents: Documents) -> None:
    with pytest.raises(DocumentNotValid, match="CreateEventInput"):
        documents.validate(documents.parse(MISSPELLED))
