"""The model of all settings: one frozen value."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from xzepr.settings.domain import EventSettings, GraphQLSettings, GroupSettings, RecorderSettings, StreamSettings
from xzepr.settings.kafka import KafkaSettings
from xzepr.settings.security import AuthSettings, JwtSettings, SecuritySettings
from xzepr.settings.server import ServerSettings, TelemetrySettings, WorkSettings
from xzepr.settings.storage import DatabaseSettings, RedisSettings
from xzepr.settings.types import Folder, Section, contradiction


class Settings(Section):
    """All settings of one process. `Settings()` has the defaults; `load` reads files and the environment."""

    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = Field(
        default="development", description="Selects the file `config/{environment}.yaml`."
    )
    data_dir: Folder = Field(
        default=Path("data"),
        description="Folder of all local data: the embedded database, keys, and the first password.",
    )
    server: ServerSettings = ServerSettings()
    work: WorkSettings = WorkSettings()
    database: DatabaseSettings = DatabaseSettings()
    jwt: JwtSettings = JwtSettings()
    auth: AuthSettings = AuthSettings()
    security: SecuritySettings = SecuritySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    events: EventSettings = EventSettings()
    recorder: RecorderSettings = RecorderSettings()
    groups: GroupSettings = GroupSettings()
    graphql: GraphQLSettings = GraphQLSettings()
    stream: StreamSettings = StreamSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()

    @model_validator(mode="after")
    def _check_input_sizes(self) -> Self:
        if self.events.max_payload_bytes > self.server.max_request_bytes:
            raise contradiction(
                "the largest payload does not fit into the largest request",
                "events.max_payload_bytes",
                "server.max_request_bytes",
            )
        if self.events.max_batch_items > self.recorder.queue_size:
            raise contradiction(
                "the largest batch does not fit into the queue", "events.max_batch_items", "recorder.queue_size"
            )
        return self
