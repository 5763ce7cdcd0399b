"""What an operator can set: the typed model, and the loader that knows where each value came from."""

from xzepr.settings.around import (
    AuthSettings,
    CorsSettings,
    DatabaseSettings,
    JwtSettings,
    RateLimitSettings,
    RedisSettings,
    SecuritySettings,
    ServerSettings,
    TelemetrySettings,
)
from xzepr.settings.load import Loaded, load
from xzepr.settings.model import Settings
from xzepr.settings.work import (
    EventSettings,
    GraphQLSettings,
    GroupSettings,
    KafkaSettings,
    RecorderSettings,
    StreamSettings,
)

__all__ = [
    "AuthSettings",
    "CorsSettings",
    "DatabaseSettings",
    "EventSettings",
    "GraphQLSettings",
    "GroupSettings",
    "JwtSettings",
    "KafkaSettings",
    "Loaded",
    "RateLimitSettings",
    "RecorderSettings",
    "RedisSettings",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "StreamSettings",
    "TelemetrySettings",
    "load",
]
