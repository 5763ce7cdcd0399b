-- Messages that the brokers of a route reject because of their content, and that the relay therefore skips. The relay
-- skips exactly the messages with a row here, so it writes the row before its position passes the message. A row is
-- deleted after a successful retry. The row of a dropped message stays and names the user that dropped it.
CREATE TABLE dead_letters (
    route      text COLLATE "C" NOT NULL,
    position   bigint NOT NULL CHECK (position > 0),
    message_id text COLLATE "C" NOT NULL,
    reason     text NOT NULL,
    attempts   integer NOT NULL DEFAULT 1 CHECK (attempts > 0),
    refused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- An administrator's instruction to retry it. The relay writes this id into Kafka with the message.
    retry_id   text COLLATE "C",
    retry_by   text,
    dropped_at timestamptz,
    dropped_by text,
    PRIMARY KEY (route, position),
    CHECK ((retry_id IS NULL) = (retry_by IS NULL)),
    CHECK ((dropped_at IS NULL) = (dropped_by IS NULL)),
    CHECK (retry_id IS NULL OR dropped_at IS NULL)
);

-- Nearly always empty; the relay queries it once a second.
CREATE INDEX dead_letters_open ON dead_letters (route, position) WHERE dropped_at IS NULL;
CREATE UNIQUE INDEX dead_letters_retried ON dead_letters (retry_id) WHERE retry_id IS NOT NULL;
