-- The processes of this hub, each as it last described itself, once a second. Nothing decides by these rows; they are for
-- people. A process removes its own at its end. Unlogged: a crash empties it, and within a second they are there again.
-- Times are the database's; what a row says of the stream is of one moment, seen_at.
CREATE UNLOGGED TABLE processes (
    id                  text COLLATE "C" PRIMARY KEY,
    host                text NOT NULL,
    pid                 integer NOT NULL,
    role                text COLLATE "C" NOT NULL,
    version             text COLLATE "C" NOT NULL,
    started_at          timestamptz NOT NULL,
    seen_at             timestamptz NOT NULL,
    head_position       bigint NOT NULL,    -- of the stream
    -- Of each that follows the stream: how far it is, and the time of the oldest message after that (null: none waits).
    feed_position       bigint,             -- null: it does not know the stream yet
    feed_waiting_since  timestamptz,
    slowest_position    bigint,             -- of its most backward subscriber; null: it has none
    slowest_waiting_since timestamptz,
    relay_route         text COLLATE "C",   -- null: it does not relay
    relay_state         text COLLATE "C",
    relay_leads         boolean NOT NULL,
    relay_position      bigint,             -- null: it does not lead, or has not asked the brokers yet
    relay_waiting_since timestamptz,
    websockets          integer NOT NULL,
    event_streams       integer NOT NULL,
    subscriptions       integer NOT NULL,
    recorder_queue      integer NOT NULL
) WITH (fillfactor = 50);                   -- each row is replaced once a second, in its own page
