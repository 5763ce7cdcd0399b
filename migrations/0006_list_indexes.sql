-- Indexes for the filters of lists: each has a column and the position, in whose order lists are read.
-- Those of events are built while events are recorded: about 3 seconds for each million events. A build that was
-- interrupted leaves an index that is not used, so each is removed before it is built.

DROP INDEX IF EXISTS events_version;
CREATE INDEX CONCURRENTLY events_version ON events (version, position);
DROP INDEX IF EXISTS events_release;
CREATE INDEX CONCURRENTLY events_release ON events (release, position);

CREATE INDEX IF NOT EXISTS receivers_version ON receivers (version, position);
CREATE INDEX IF NOT EXISTS groups_type ON groups (type, position);
CREATE INDEX IF NOT EXISTS groups_version ON groups (version, position);
CREATE INDEX IF NOT EXISTS dead_letters_dropped ON dead_letters (route, position) WHERE dropped_at IS NOT NULL;
