"""Users, logins and API keys in the schema."""

from collections.abc import Sequence
from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.permissions import Anyone, SignedIn, requires
from xzepr.core.actor import Permission, Role
from xzepr.features.auth.model import ApiKey as ApiKeyModel
from xzepr.features.auth.model import NewApiKey, Session
from xzepr.features.users.model import NewUser
from xzepr.features.users.model import User as UserModel

strawberry.enum(Permission, name="Permission", description="One thing that an actor may be allowed to do.")
strawberry.enum(Role, name="Role", description="A named set of permissions.")


@strawberry.type(description="Who is asking.")
class Me:
    """The caller."""

    id: strawberry.ID
    username: str
    permissions: list[Permission]


@strawberry.type(description="Somebody who may log in.")
class User:
    """Resolved from `users.model.User`."""

    id: strawberry.ID
    username: str
    roles: list[Role]
    enabled: bool
    created_at: datetime


@strawberry.type(description="A key that acts for its user. Its secret is told once, when it is created.")
class ApiKey:
    """Resolved from `auth.model.ApiKey`."""

    id: strawberry.ID
    name: str
    permissions: list[Permission] | None = strawberry.field(
        description="What it is narrowed to; null: whatever its user may do."
    )
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@strawberry.input
class LoginInput:
    """Credentials of a local account."""

    username: str
    password: str


@strawberry.type
class LoginPayload:
    """A session: send the token as `Authorization: Bearer …`."""

    token: str
    expires_at: datetime

    @strawberry.field(graphql_type=User)
    @staticmethod
    def user(root: strawberry.Parent[Session]) -> UserModel:
        return root.user


@strawberry.input
class CreateApiKeyInput:
    """A key that acts for the caller."""

    name: str
    permissions: list[Permission] | None = strawberry.field(
        default=None, description="Narrow it to these; null: whatever its user may do."
    )
    expires_at: datetime | None = None


@strawberry.type
class CreateApiKeyPayload:
    """The key and its secret, which cannot be had again."""

    api_key: ApiKey
    secret: str


@strawberry.input
class RevokeApiKeyInput:
    """A key to be ended."""

    id: strawberry.ID


@strawberry.type
class RevokeApiKeyPayload:
    """The id of the key that is no longer accepted."""

    id: strawberry.ID


@strawberry.input
class CreateUserInput:
    """A local account."""

    username: str
    password: str
    roles: list[Role]


@strawberry.input
class SetUserEnabledInput:
    """Whether a user may log in, and their tokens and keys are accepted."""

    id: strawberry.ID
    enabled: bool


@strawberry.type
class UserPayload:
    """The user as they are after the mutation."""

    user: User


@strawberry.type
class CreateStreamTicketPayload:
    """What opens one event stream: GET it with `?ticket=…` before it expires."""

    ticket: str
    expires_at: datetime


@strawberry.type
class AccountQueries:
    """Root fields about the caller."""

    @strawberry.field(description="Who the credentials say is asking.", directives=[SignedIn()])
    @staticmethod
    def me(info: Info) -> Me | None:
        actor = info.context.actor
        actor.must_be_known()
        return Me(id=strawberry.ID(actor.id), username=actor.name, permissions=sorted(actor.permissions))

    @strawberry.field(
        graphql_type=list[ApiKey] | None, description="The caller's keys, newest first.", directives=[SignedIn()]
    )
    @staticmethod
    async def api_keys(info: Info) -> list[ApiKeyModel]:
        return await info.context.hub.auth.api_keys(info.context.actor)

    @strawberry.field(
        graphql_type=list[User] | None,
        description="Local accounts, by name; at most a thousand.",
        directives=requires(Permission.USER_MANAGE),
    )
    @staticmethod
    async def users(info: Info) -> Sequence[UserModel]:
        return await info.context.hub.users.everybody(info.context.actor)


@strawberry.type
class AccountMutations:
    """Root fields that change who may ask."""

    @strawberry.mutation(graphql_type=LoginPayload | None, directives=[Anyone()])
    @staticmethod
    async def login(info: Info, input: LoginInput) -> Session:
        return await info.context.hub.auth.login(input.username, input.password)

    @strawberry.mutation(description="Needs a login; a key cannot make keys.", directives=[SignedIn()])
    @staticmethod
    async def create_api_key(info: Info, input: CreateApiKeyInput) -> CreateApiKeyPayload | None:
        permissions = None if input.permissions is None else tuple(input.permissions)
        new = NewApiKey(input.name, permissions, input.expires_at)
        created = await info.context.hub.auth.create_api_key(info.context.actor, new)
        key: ApiKey = created.key  # pyright: ignore[reportAssignmentType] resolved from the feature's ApiKey
        return CreateApiKeyPayload(api_key=key, secret=created.secret)

    @strawberry.mutation(description="One's own key; with user:manage anybody's.", directives=[SignedIn()])
    @staticmethod
    async def revoke_api_key(info: Info, input: RevokeApiKeyInput) -> RevokeApiKeyPayload | None:
        await info.context.hub.auth.revoke_api_key(info.context.actor, input.id)
        return RevokeApiKeyPayload(id=input.id)

    @strawberry.mutation(
        description="For clients that can send no header, such as EventSource: opens one event stream within 30 s, "
        "with the rights and for as long as the credential that asked for it.",
        directives=[SignedIn()],
    )
    @staticmethod
    async def create_stream_ticket(info: Info) -> CreateStreamTicketPayload | None:
        created = await info.context.hub.auth.create_stream_ticket(info.context.actor)
        return CreateStreamTicketPayload(ticket=created.text, expires_at=created.expires_at)

    @strawberry.mutation(directives=requires(Permission.USER_MANAGE))
    @staticmethod
    async def create_user(info: Info, input: CreateUserInput) -> UserPayload | None:
        new = NewUser(input.username, input.password, tuple(input.roles))
        return _user(await info.context.hub.users.create(info.context.actor, new))

    @strawberry.mutation(directives=requires(Permission.USER_MANAGE))
    @staticmethod
    async def set_user_enabled(info: Info, input: SetUserEnabledInput) -> UserPayload | None:
        return _user(await info.context.hub.users.set_enabled(info.context.actor, input.id, input.enabled))


def _user(user: UserModel) -> UserPayload:
    return UserPayload(user=user)  # pyright: ignore[reportArgumentType] resolved from the feature's User
