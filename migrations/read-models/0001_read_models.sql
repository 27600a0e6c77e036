-- Read models: each can be dropped and filled again from the log. Only the crate `projectors` writes here.

-- How far each live projection has applied each shard; moves in the transaction of its rows.
CREATE TABLE checkpoints (
    projection text     NOT NULL,
    topic      smallint NOT NULL,
    shard      smallint NOT NULL,
    position   bigint   NOT NULL,
    PRIMARY KEY (projection, topic, shard)
) WITH (fillfactor = 10);

-- Events that a projection could not apply, and all later ones of the same ordering key.
CREATE TABLE parked (
    projection text        NOT NULL,
    topic      smallint    NOT NULL,
    shard      smallint    NOT NULL,
    position   bigint      NOT NULL,
    key        uuid        NOT NULL,
    error      text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, topic, shard, position)
);
CREATE INDEX parked_keys ON parked (projection, key);

-- Projection `users`.
CREATE TABLE users (
    user_id        uuid        PRIMARY KEY,
    username       text COLLATE "C",
    display_name   text,
    -- In lower case (Unicode's, whatever the database's locale), for search.
    display_name_folded text COLLATE "C",
    email          text,
    avatar_file_id uuid,
    created_at     timestamptz NOT NULL
);
-- Collated "C", so that one index serves both prefixes and order.
CREATE INDEX users_username ON users (username, user_id);
CREATE INDEX users_display_name ON users (display_name_folded, user_id);

-- Projection `sessions`.
CREATE TABLE sessions (
    session_id   uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL,
    device_id    uuid        NOT NULL,
    device_name  text,
    created_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, created_at, session_id);

-- Projection `conversations`: each conversation with its head, and who is or was in it.
CREATE TABLE conversations (
    conversation_id uuid        PRIMARY KEY,
    type            text        NOT NULL,
    name            text,
    history         text        NOT NULL,
    member_count    integer     NOT NULL,
    last_seq        bigint      NOT NULL,
    -- seq of the newest message; the message itself is in `timeline`.
    last_message_seq bigint,
    updated_at      timestamptz NOT NULL
) WITH (fillfactor = 50);

-- One row a stay: who left keeps the row, since `status` stays where it was, and a former member is told 403, not 404.
CREATE TABLE members (
    conversation_id uuid        NOT NULL,
    user_id         uuid        NOT NULL,
    -- seq of the own member_joined; 0 for those it was created with.
    joined_seq      bigint      NOT NULL,
    left_seq        bigint,
    role            text        NOT NULL,
    joined_at       timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, user_id, joined_seq)
);
CREATE INDEX members_user ON members (user_id, conversation_id) WHERE left_seq IS NULL;

-- Projection `receipts`: watermarks of members. A stay in which nothing moved has no row: it stands at its joined_seq.
CREATE TABLE receipts (
    conversation_id uuid        NOT NULL,
    user_id         uuid        NOT NULL,
    -- That of the stay in `members`: null while it lasts. Watermarks of stays that ended keep `status` where it was.
    left_seq        bigint,
    delivered_to    bigint      NOT NULL,
    delivered_at    timestamptz,
    read_to         bigint      NOT NULL,
    read_at         timestamptz,
    CONSTRAINT receipts_stay UNIQUE NULLS NOT DISTINCT (conversation_id, user_id, left_seq)
) WITH (fillfactor = 50);

-- Projection `timeline`: every numbered event, messages in columns, the others in `data`.
CREATE TABLE timeline (
    conversation_id uuid        NOT NULL,
    seq             bigint      NOT NULL,
    position        bigint      NOT NULL,
    at              timestamptz NOT NULL,
    -- Shard of `position`.
    topic_shard     smallint    NOT NULL,
    -- Null for a message.
    event           text,
    data            json,
    message_id      uuid,
    sender_id       uuid,
    type            text,
    content         text,
    reply_to        uuid,
    -- Null for none.
    mentions        uuid[],
    PRIMARY KEY (conversation_id, seq)
);
CREATE UNIQUE INDEX timeline_message ON timeline (message_id) WHERE message_id IS NOT NULL;
