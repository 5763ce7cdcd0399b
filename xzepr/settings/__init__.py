"""The settings of the hub: their typed model, and the loader, which records the origin of each value."""

from xzepr.settings.domain import EventSettings, GraphQLSettings, GroupSettings, RecorderSettings, StreamSettings
from xzepr.settings.kafka import KafkaSettings
from xzepr.settings.load import LoadedSettings, load
from xzepr.settings.model import Settings
from xzepr.settings.security import AuthSettings, CorsSettings, JwtSettings, RateLimitSettings, SecuritySettings
from xzepr.settings.server import ServerSettings, TelemetrySettings, WorkSettings
from xzepr.settings.storage import DatabaseSettings, RedisSettings

__all__ = [
    "AuthSettings",
    "CorsSettings",
    "DatabaseSettings",
    "EventSettings",
    "GraphQLSettings",
    "GroupSettings",
    "JwtSettings",
    "KafkaSettings",
    "LoadedSettings",
    "RateLimitSettings",
    "RecorderSettings",
    "RedisSettings",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "StreamSettings",
    "TelemetrySettings",
    "WorkSettings",
    "load",
]
