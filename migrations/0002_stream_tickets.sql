-- Tickets that open one event stream each, for clients that can send no header, such as a browser's EventSource.

-- The ticket itself is never stored: digest is the SHA-256 of its characters. A row is deleted when its ticket is used.
-- Unlogged: a crash may forget them, and clients ask for another.
CREATE UNLOGGED TABLE stream_tickets (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    user_id    text COLLATE "C" NOT NULL,
    key_digest bytea,                       -- the API key that asked for it; null: a token did
    ends_at    timestamptz,                 -- when that token ends, and with it the stream; null: not by itself
    expires_at timestamptz NOT NULL
);
CREATE INDEX stream_tickets_expires_at_idx ON stream_tickets (expires_at);
