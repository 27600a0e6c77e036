-- State that processes share and that is neither log nor read model: losing a row of it may repeat work, never skip it.

-- Secrets of the installation, sealed by the master key where one is given.
CREATE TABLE server_keys (
    key_id     uuid        PRIMARY KEY,
    purpose    text        NOT NULL,
    sealed     boolean     NOT NULL,
    secret     bytea       NOT NULL,
    public     bytea,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Single-use tickets of the WebSocket upgrade; only their SHA-256 stands here.
CREATE TABLE ws_tickets (
    ticket_hash bytea       PRIMARY KEY,
    user_id     uuid        NOT NULL,
    session_id  uuid        NOT NULL,
    device_id   uuid        NOT NULL,
    -- A socket lives no longer than the access token that asked for its ticket.
    access_expires_at timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX ws_tickets_expiry ON ws_tickets (expires_at);

-- A session whose tokens are refused; kept until the last of them has expired by itself.
CREATE TABLE revoked_sessions (
    session_id uuid        PRIMARY KEY,
    revoked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX revoked_sessions_time ON revoked_sessions (revoked_at);

-- A device that said its first hello.
CREATE TABLE devices (
    user_id      uuid        NOT NULL,
    device_id    uuid        NOT NULL,
    first_hello_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, device_id)
);

-- What each device has durably taken of each conversation.
CREATE TABLE device_cursors (
    user_id         uuid        NOT NULL,
    device_id       uuid        NOT NULL,
    conversation_id uuid        NOT NULL,
    -- The user's stay in the conversation, by seq of the own member_joined; 0 for those it was created with. Null where
    -- the device acked without ever having been connected in that stay.
    joined_seq      bigint,
    acked           bigint      NOT NULL,
    -- When the device last said so; null where it only began here.
    acked_at        timestamptz,
    PRIMARY KEY (user_id, device_id, conversation_id)
) WITH (fillfactor = 70);
