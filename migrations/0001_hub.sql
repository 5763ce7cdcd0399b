-- The hub: users, receivers, events, gates, and the stream of all changes.
-- Needs PostgreSQL 15 or newer, but no superuser and no extension.

CREATE TABLE hub (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hub IS 'Names this hub in Kafka, so that two hubs never mistake each other''s state.';
INSERT INTO hub (id) VALUES (upper(replace(gen_random_uuid()::text, '-', '')));

-- The stream ---------------------------------------------------------------------------------------

CREATE TABLE messages (
    position bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    actor_kind text COLLATE "C" NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    actor_name text NOT NULL,
    receiver_id text COLLATE "C",
    group_id text COLLATE "C",
    event_position bigint,
    data json
) PARTITION BY RANGE (position);
COMMENT ON TABLE messages IS 'The append-only log in commit order. Positions have no gaps: they are handed out under the writer''s lock.';
COMMENT ON COLUMN messages.event_position IS 'The event that the message is about or was caused by; its body stands in events.';
COMMENT ON COLUMN messages.data IS 'What the message says beyond its event, as it was when it was said.';

CREATE TABLE messages_p0 PARTITION OF messages FOR VALUES FROM (1) TO (10000001);
CREATE TABLE messages_p1 PARTITION OF messages FOR VALUES FROM (10000001) TO (20000001);

-- Users and credentials ----------------------------------------------------------------------------

-- User names are stored in lower case (users/rules.py converts them), so that "Admin" and "admin" are one user.
CREATE TABLE users (
    id            text COLLATE "C" PRIMARY KEY,
    username      text COLLATE "C" NOT NULL CONSTRAINT users_username_key UNIQUE CHECK (username = lower(username)),
    password_hash text NOT NULL,
    roles         text[] NOT NULL,
    enabled       boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Secrets are not stored: digest is the SHA-256 of the key's characters.
CREATE TABLE api_keys (
    id          text COLLATE "C" PRIMARY KEY,
    user_id     text COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name        text NOT NULL,
    digest      bytea NOT NULL CONSTRAINT api_keys_digest_key UNIQUE CHECK (octet_length(digest) = 32),
    permissions text[],                     -- null: all permissions of the user's roles
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX api_keys_user_idx ON api_keys (user_id, id);

-- Logins of the last minute, running (failed = false) or failed, counted per user name. Unlogged: a crash may delete them.
CREATE UNLOGGED TABLE login_attempts (
    id          text COLLATE "C" PRIMARY KEY,
    name_digest bytea NOT NULL,             -- SHA-256 of the name as sent, stripped and in lower case
    failed      boolean NOT NULL DEFAULT false,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX login_attempts_name_idx ON login_attempts (name_digest, at);
CREATE INDEX login_attempts_at_idx ON login_attempts (at);


-- Receivers and events -----------------------------------------------------------------------------

CREATE TABLE receivers (
    id text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL UNIQUE,
    name text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    description text NOT NULL,
    schema json NOT NULL,
    schema_digest text COLLATE "C" NOT NULL,
    revision integer NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    enabled boolean NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    resource_version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON COLUMN receivers.position IS 'Position of the message that announced it: the order of lists.';
CREATE INDEX receivers_name ON receivers (name, position);
CREATE INDEX receivers_type ON receivers (type, position);

CREATE TABLE receiver_revisions (
    receiver_id text COLLATE "C" NOT NULL REFERENCES receivers ON DELETE CASCADE,
    revision integer NOT NULL,
    schema json NOT NULL,
    schema_digest text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (receiver_id, revision)
);

CREATE TABLE events (
    position bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    unit_id bytea NOT NULL,
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    release text COLLATE "C" NOT NULL,
    platform_id text COLLATE "C" NOT NULL,
    package text COLLATE "C" NOT NULL,
    description text NOT NULL,
    payload json NOT NULL,
    success boolean NOT NULL,
    receiver_id text COLLATE "C" NOT NULL,
    receiver_revision integer NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL
);
COMMENT ON COLUMN events.position IS 'Position of the event.recorded message, whose id is the event''s id.';
CREATE INDEX events_unit ON events (unit_id, position);
CREATE INDEX events_receiver ON events (receiver_id, position);
CREATE INDEX events_name ON events (name, position);
-- No foreign key to receivers: the recorder reads them under the writer lock, and a receiver with events is never deleted.

CREATE TABLE unit_status (
    unit_id bytea NOT NULL,
    receiver_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    success boolean NOT NULL,
    run_position bigint,
    run_began_at timestamptz,
    PRIMARY KEY (unit_id, receiver_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE unit_status IS 'Each receiver''s latest event for a unit, and where its present run of successes began (null after a failure).';

CREATE TABLE idempotency (
    owner_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX idempotency_recorded_at ON idempotency (recorded_at);

-- Gates --------------------------------------------------------------------------------------------

CREATE TABLE groups (
    id text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL UNIQUE,
    name text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    description text NOT NULL,
    enabled boolean NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    resource_version bigint NOT NULL,
    changed_position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON COLUMN groups.changed_position IS 'Position of the latest message about the group itself.';
CREATE INDEX groups_name ON groups (name, position);

CREATE TABLE group_members (
    group_id text COLLATE "C" NOT NULL REFERENCES groups ON DELETE CASCADE,
    receiver_id text COLLATE "C" NOT NULL REFERENCES receivers,
    ordinal integer NOT NULL,
    PRIMARY KEY (group_id, receiver_id)
);
CREATE INDEX group_members_receiver ON group_members (receiver_id);

-- Kafka --------------------------------------------------------------------------------------------

-- One row per route of the relay, written by its leader. The published position itself is in Kafka, written together with
-- the messages; published_* is a copy by which the relay detects lost topics.
CREATE TABLE relay_routes (
    route              text COLLATE "C" PRIMARY KEY,
    state              text COLLATE "C" NOT NULL CHECK (state IN ('waiting_for_brokers', 'following', 'stopped')),
    detail             text NOT NULL DEFAULT '',
    since              timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_position bigint NOT NULL DEFAULT 0 CHECK (published_position >= 0),
    published_id       text COLLATE "C" NOT NULL DEFAULT '',
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- An administrator's instruction to a stopped relay: resume after this position.
    resume_id          text COLLATE "C",
    resume_after       bigint CHECK (resume_after >= 0),
    resume_by          text,
    CHECK ((resume_id IS NULL) = (resume_after IS NULL))
);
