-- Tickets for one event stream each, for clients that cannot send headers, such as a browser's EventSource.

-- Tickets are not stored: digest is the SHA-256 of the ticket's characters. A row is deleted when its ticket is used.
-- Unlogged: a crash may delete them, and clients then request another.
CREATE UNLOGGED TABLE stream_tickets (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    user_id    text COLLATE "C" NOT NULL,
    key_digest bytea,                       -- of the API key that requested it; null: a token did
    ends_at    timestamptz,                 -- when that token expires, which ends the stream; null: never
    expires_at timestamptz NOT NULL
);
CREATE INDEX stream_tickets_expires_at_idx ON stream_tickets (expires_at);
