-- The latest report of each process of the hub, written once a second, for display only. A process deletes its row when it
-- ends. Unlogged: a crash empties the table, and the rows are back within a second. All times are of the database's clock.
-- All values of a row about the stream are of the same moment, seen_at.
CREATE UNLOGGED TABLE processes (
    id                  text COLLATE "C" PRIMARY KEY,
    host                text NOT NULL,
    pid                 integer NOT NULL,
    role                text COLLATE "C" NOT NULL,
    version             text COLLATE "C" NOT NULL,
    started_at          timestamptz NOT NULL,
    seen_at             timestamptz NOT NULL,
    head_position       bigint NOT NULL,    -- of the stream
    -- For each reader of the stream: its position, and the time of the oldest message after it (null: there is none).
    feed_position       bigint,             -- null: it has not read the stream yet
    feed_waiting_since  timestamptz,
    slowest_position    bigint,             -- of its slowest subscriber; null: it has none
    slowest_waiting_since timestamptz,
    relay_route         text COLLATE "C",   -- null: it has no relay
    relay_state         text COLLATE "C",
    relay_leads         boolean NOT NULL,
    relay_position      bigint,             -- null: it does not lead, or has not read the position yet
    relay_waiting_since timestamptz,
    websockets          integer NOT NULL,
    event_streams       integer NOT NULL,
    subscriptions       integer NOT NULL,
    recorder_queue      integer NOT NULL
) WITH (fillfactor = 50);                   -- leaves space to update a row in its own page
