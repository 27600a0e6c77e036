-- Projection `users`: whether the user reads the audit.
ALTER TABLE users ADD COLUMN is_operator boolean NOT NULL DEFAULT false;

-- Projection `audit`: who did what to what, when, and from where; one row an event, nothing of what was said.
CREATE TABLE audit (
    topic         smallint    NOT NULL,
    shard         smallint    NOT NULL,
    position      bigint      NOT NULL,
    at            timestamptz NOT NULL,
    event_id      uuid        NOT NULL,
    type          text COLLATE "C" NOT NULL,
    -- Null where no user did it.
    actor         uuid,
    -- user, session, conversation or message
    object_type   text COLLATE "C" NOT NULL,
    object        uuid        NOT NULL,
    conversation  uuid,
    session       uuid,
    device        uuid,
    -- Null for the event's own id.
    correlation   text,
    address       text,
    user_agent    text,
    PRIMARY KEY (topic, shard, position)
);
-- The newest first; what happened at the same moment is sorted by its place when it is read.
CREATE INDEX audit_time ON audit (at);
CREATE INDEX audit_actor ON audit (actor, at);
CREATE INDEX audit_object ON audit (object, at);
CREATE INDEX audit_type ON audit (type, at);
