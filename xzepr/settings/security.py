"""Settings of identity and access: accounts, tokens, other origins, rate limits."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from xzepr.settings.types import LATER, Count, Number, Origin, Section, Text, contradiction


class AuthSettings(Section):
    """Signing in, and the first user."""

    admin_username: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        default="admin", description="Name of the user that the first start makes."
    )
    admin_password: SecretStr | None = Field(
        default=None, description="Password of that user. Without it, the first start makes one up and shows it once."
    )
    login_failures_per_minute: Count = Field(
        default=10, description="Failed logins a minute for one user name, after which the next are refused unread."
    )
    password_min_length: Count = Field(default=12, description="Shortest password that is accepted, in characters.")

    @model_validator(mode="after")
    def _own_rule_is_kept(self) -> Self:
        password = self.admin_password
        if password is not None and len(password.get_secret_value()) < self.password_min_length:
            raise contradiction("the password is too short", "admin_password", "password_min_length")
        return self


class JwtSettings(Section):
    """The access tokens that `login` gives."""

    private_key_path: Path | None = Field(
        default=None,
        description="RSA key that signs tokens, PEM. Needed with `database.url`: `xzepr keys init` makes a pair. "
        "Without `database.url`, the first start makes one in `data_dir`.",
    )
    public_key_path: Path | None = Field(default=None, description="Its public half, PEM.")
    issuer: Text = Field(default="xzepr", description="The `iss` that tokens carry and must carry.")
    audience: Text = Field(default="xzepr", description="The `aud` that tokens carry and must carry.")
    access_token_expiration: Count = Field(default=900, description="Seconds that an access token is valid.")
    refresh_token_expiration: Annotated[Count, LATER] = Field(
        default=86_400, description="Seconds that a refresh token is valid."
    )

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.private_key_path is None) != (self.public_key_path is None):
            raise contradiction("a key pair needs both of its files", "private_key_path", "public_key_path")
        return self


class CorsSettings(Section):
    """Pages from other origins."""

    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description="Origins, besides the hub's own, from which browsers may open a WebSocket."
    )
    allow_credentials: Annotated[bool, LATER] = Field(default=False, description="Let other origins send credentials.")
    max_age_seconds: Annotated[Number, Field(ge=0), LATER] = Field(
        default=600, description="Seconds that a browser may remember the answer to a preflight."
    )


class RateLimitSettings(Section):
    """Requests a minute."""

    anonymous_rpm: Annotated[Count, LATER] = Field(
        default=60, description="Requests a minute from one address, not signed in."
    )
    authenticated_rpm: Annotated[Count, LATER] = Field(default=600, description="Requests a minute from one user.")
    admin_rpm: Annotated[Count, LATER] = Field(default=6000, description="Requests a minute from one admin.")


class SecuritySettings(Section):
    """What is let in from elsewhere, and how often."""

    cors: CorsSettings = CorsSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
