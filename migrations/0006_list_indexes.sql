-- Indexes of lists and their filters: each index has a column and the position, in which lists are sorted.
-- Writers wait while the indexes of events are built: about 2 seconds for each million events. Readers do not wait.

CREATE INDEX events_version ON events (version, position);
CREATE INDEX events_release ON events (release, position);

CREATE INDEX receivers_version ON receivers (version, position);
CREATE INDEX groups_type ON groups (type, position);
CREATE INDEX groups_version ON groups (version, position);
CREATE INDEX dead_letters_dropped ON dead_letters (route, position) WHERE dropped_at IS NOT NULL;
