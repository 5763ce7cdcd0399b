"""Settings of accounts, tokens, cross-origin requests and rate limits."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from xzepr.settings.types import MAX_COUNT, Count, File, Later, Number, Origin, Section, Text, contradiction


class AuthSettings(Section):
    """Logins, and the first user."""

    admin_username: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        default="admin", description="User name of the administrator that the first start creates."
    )
    admin_password: SecretStr | None = Field(
        default=None,
        description="Password of that administrator. By default, the first start generates one and shows it once.",
    )
    login_failures_per_minute: Count = Field(
        default=10, description="Failed logins per minute for one user name; further ones are rejected without a check."
    )
    password_min_length: Count = Field(default=12, description="Minimum length of a password, in characters.")

    @model_validator(mode="after")
    def _check_password_length(self) -> Self:
        password = self.admin_password
        if password is not None and len(password.get_secret_value()) < self.password_min_length:
            raise contradiction("the password is too short", "admin_password", "password_min_length")
        return self


class JwtSettings(Section):
    """The access tokens that `login` returns."""

    private_key_path: File | None = Field(
        default=None,
        description="RSA private key (PEM) that signs tokens. Required with `database.url`; `xzepr keys init` creates "
        "a key pair. Without `database.url`, the first start creates one in `data_dir`.",
    )
    public_key_path: File | None = Field(default=None, description="The public key (PEM) of that pair.")
    issuer: Text = Field(
        default="xzepr", description="The `iss` claim of tokens; tokens with another one are rejected."
    )
    audience: Text = Field(
        default="xzepr", description="The `aud` claim of tokens; tokens with another one are rejected."
    )
    access_token_expiration: Count = Field(default=900, description="Seconds for which an access token is valid.")
    refresh_token_expiration: Annotated[
        Count | None, Later("the hub issues no refresh tokens; jwt.access_token_expiration limits access tokens")
    ] = Field(default=None, description="Seconds for which a refresh token is valid.")

    @model_validator(mode="after")
    def _check_key_pair(self) -> Self:
        if (self.private_key_path is None) != (self.public_key_path is None):
            raise contradiction("a key pair needs both of its files", "private_key_path", "public_key_path")
        return self


class CorsSettings(Section):
    """Cross-origin requests of browsers."""

    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description="Origins, besides the hub's own, from which browsers may open a WebSocket."
    )
    allow_credentials: Annotated[bool, Later("browsers at other origins may open WebSockets only")] = Field(
        default=False, description="Allow other origins to send credentials."
    )
    max_age_seconds: Annotated[
        Annotated[Number, Field(ge=0, le=MAX_COUNT)] | None, Later("the hub answers no preflight requests")
    ] = Field(default=None, description="Seconds for which a browser may cache the response to a preflight request.")


_NO_RATE_LIMITS = Later("the hub limits failed logins only; let a proxy in front of it limit requests")


class RateLimitSettings(Section):
    """Rate limits, in requests per minute."""

    anonymous_rpm: Annotated[Count | None, _NO_RATE_LIMITS] = Field(
        default=None, description="Requests per minute from one address without credentials."
    )
    authenticated_rpm: Annotated[Count | None, _NO_RATE_LIMITS] = Field(
        default=None, description="Requests per minute from one user."
    )
    admin_rpm: Annotated[Count | None, _NO_RATE_LIMITS] = Field(
        default=None, description="Requests per minute from one administrator."
    )


class SecuritySettings(Section):
    """Cross-origin requests and rate limits."""

    cors: CorsSettings = CorsSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
