-- Records that are to be published again: asked for by `parlance replay`, done by whoever leads the shard.
CREATE TABLE replays (
    replay_id uuid        NOT NULL,
    topic     smallint    NOT NULL,
    shard     smallint    NOT NULL,
    -- The first and the last position that are wanted, and the last one that was published again.
    first     bigint      NOT NULL CHECK (first > 0),
    last      bigint      NOT NULL,
    done_to   bigint      NOT NULL,
    state     text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed', 'cancelled')),
    failure   text,
    -- When it got further; the one that waits longest comes first.
    moved_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (replay_id, topic, shard)
);
CREATE INDEX replays_open ON replays (moved_at) WHERE state = 'open';
CREATE INDEX replays_over ON replays (moved_at) WHERE state <> 'open';
