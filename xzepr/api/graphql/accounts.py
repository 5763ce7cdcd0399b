"""Users, logins and API keys in the schema."""

from collections.abc import Sequence
from datetime import datetime

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.permissions import Anyone, SignedIn, requires
from xzepr.api.graphql_server.plans.resolvers import ITSELF
from xzepr.core.actor import Permission, Role
from xzepr.features.auth.model import ApiKey as ApiKeyModel
from xzepr.features.auth.model import NewApiKey, Session
from xzepr.features.users.model import NewUser
from xzepr.features.users.model import User as UserModel

strawberry.enum(Permission, name="Permission", description="Something that a user or an API key may be allowed to do.")
strawberry.enum(Role, name="Role", description="A named set of permissions.")


@strawberry.type(description="The caller.")
class Me:
    """The user behind the credentials of the request."""

    id: strawberry.ID
    username: str
    permissions: list[Permission]


@strawberry.type(description="A local account.")
class User:
    """Resolved from `users.model.User`."""

    id: strawberry.ID
    username: str
    roles: list[Role]
    enabled: bool = strawberry.field(
        description="Whether the user may log in, and whether their tokens and API keys are accepted."
    )
    created_at: datetime


@strawberry.type(description="A key that acts for its user. Its secret is shown once, when the key is created.")
class ApiKey:
    """Resolved from `auth.model.ApiKey`."""

    id: strawberry.ID
    name: str
    permissions: list[Permission] | None = strawberry.field(
        description="The permissions that the key is limited to; null if it has all permissions of its user."
    )
    created_at: datetime
    expires_at: datetime | None = strawberry.field(description="Null if the key does not expire.")
    revoked_at: datetime | None


@strawberry.input
class LoginInput:
    """The credentials of a local account."""

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
    """An API key to create, which acts for the caller."""

    name: str
    permissions: list[Permission] | None = strawberry.field(
        default=None, description="Limit the key to these permissions; null grants all permissions of its user."
    )
    expires_at: datetime | None = strawberry.field(default=None, description="Null if the key does not expire.")


@strawberry.type
class CreateApiKeyPayload:
    """The key and its secret, which is not shown again."""

    api_key: ApiKey
    secret: str


@strawberry.input
class RevokeApiKeyInput:
    """An API key to revoke."""

    id: strawberry.ID


@strawberry.type
class RevokeApiKeyPayload:
    """The id of the revoked key."""

    id: strawberry.ID


@strawberry.input
class CreateUserInput:
    """A local account to create."""

    username: str
    password: str
    roles: list[Role]


@strawberry.input
class SetUserEnabledInput:
    """Whether a user may log in, and whether their tokens and keys are accepted."""

    id: strawberry.ID
    enabled: bool


@strawberry.type(description="The account that was created.")
class CreateUserPayload:
    """Resolved from `users.model.User`."""

    id: strawberry.ID = strawberry.field(description="The id of the user.")
    user: User = strawberry.field(description="The user.", metadata=ITSELF)


@strawberry.type(description="The account that was enabled or disabled.")
class SetUserEnabledPayload:
    """Resolved from `users.model.User`."""

    id: strawberry.ID = strawberry.field(description="The id of the user.")
    user: User = strawberry.field(description="The user after the change.", metadata=ITSELF)


@strawberry.type
class CreateStreamTicketPayload:
    """A ticket that opens one event stream: send GET with `?ticket=…` before it expires."""

    ticket: str
    expires_at: datetime


@strawberry.type
class AccountQueries:
    """Queries for the caller and for users."""

    @strawberry.field(description="The caller, according to the credentials.", directives=[SignedIn()])
    @staticmethod
    def me(info: Info) -> Me | None:
        actor = info.context.actor
        actor.require_authenticated()
        return Me(id=strawberry.ID(actor.id), username=actor.name, permissions=sorted(actor.permissions))

    @strawberry.field(
        graphql_type=list[ApiKey] | None, description="The caller's API keys, newest first.", directives=[SignedIn()]
    )
    @staticmethod
    async def api_keys(info: Info) -> list[ApiKeyModel]:
        return await info.context.hub.auth.api_keys(info.context.actor)

    @strawberry.field(
        graphql_type=list[User] | None,
        description="Local accounts by name; at most 1,000.",
        directives=requires(Permission.USER_MANAGE),
    )
    @staticmethod
    async def users(info: Info) -> Sequence[UserModel]:
        return await info.context.hub.users.list_users(info.context.actor)


@strawberry.type
class AccountMutations:
    """Mutations of users, sessions and API keys."""

    @strawberry.mutation(graphql_type=LoginPayload | None, directives=[Anyone()])
    @staticmethod
    async def login(info: Info, input: LoginInput) -> Session:
        return await info.context.hub.auth.login(input.username, input.password)

    @strawberry.mutation(
        description="Creates an API key. The caller must have logged in: a key cannot create keys.",
        directives=[SignedIn()],
    )
    @staticmethod
    async def create_api_key(info: Info, input: CreateApiKeyInput) -> CreateApiKeyPayload | None:
        permissions = None if input.permissions is None else tuple(input.permissions)
        new = NewApiKey(input.name, permissions, input.expires_at)
        created = await info.context.hub.auth.create_api_key(info.context.actor, new)
        key: ApiKey = created.key  # pyright: ignore[reportAssignmentType] resolved from the feature's ApiKey
        return CreateApiKeyPayload(api_key=key, secret=created.secret)

    @strawberry.mutation(
        description="Revokes an API key of the caller; with user:manage, of any user.", directives=[SignedIn()]
    )
    @staticmethod
    async def revoke_api_key(info: Info, input: RevokeApiKeyInput) -> RevokeApiKeyPayload | None:
        await info.context.hub.auth.revoke_api_key(info.context.actor, input.id)
        return RevokeApiKeyPayload(id=input.id)

    @strawberry.mutation(
        description="For clients that cannot send headers, such as EventSource. The ticket opens one event stream "
        "within 30 s. The stream has the rights of the credential that requested the ticket, and ends with it.",
        directives=[SignedIn()],
    )
    @staticmethod
    async def create_stream_ticket(info: Info) -> CreateStreamTicketPayload | None:
        created = await info.context.hub.auth.create_stream_ticket(info.context.actor)
        return CreateStreamTicketPayload(ticket=created.text, expires_at=created.expires_at)

    @strawberry.mutation(graphql_type=CreateUserPayload | None, directives=requires(Permission.USER_MANAGE))
    @staticmethod
    async def create_user(info: Info, input: CreateUserInput) -> UserModel:
        new = NewUser(input.username, input.password, tuple(input.roles))
        return await info.context.hub.users.create(info.context.actor, new)

    @strawberry.mutation(graphql_type=SetUserEnabledPayload | None, directives=requires(Permission.USER_MANAGE))
    @staticmethod
    async def set_user_enabled(info: Info, input: SetUserEnabledInput) -> UserModel:
        return await info.context.hub.users.set_enabled(info.context.actor, input.id, input.enabled)
