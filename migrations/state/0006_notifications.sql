-- Notifications. Subscriptions and webhooks are no events: they are state of devices and of the installation, and secrets.

-- Where browsers are reached while they are away. A subscription goes with its session, so that a log-out ends it.
CREATE TABLE push_subscriptions (
    user_id         uuid        NOT NULL,
    -- Chosen by the client.
    subscription_id uuid        NOT NULL,
    -- What deliveries call it.
    target_id       uuid        NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    session_id      uuid        NOT NULL,
    -- Endpoint and keys, sealed: whoever has the endpoint may push.
    sealed          bytea       NOT NULL,
    -- SHA-256 of the endpoint: a browser that another user registers is not theirs and one's own.
    endpoint_hash   bytea       NOT NULL,
    -- The origin of the endpoint.
    service         text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (user_id, subscription_id)
);
CREATE INDEX push_subscriptions_session ON push_subscriptions (session_id);
CREATE INDEX push_subscriptions_endpoint ON push_subscriptions (endpoint_hash);
CREATE INDEX push_subscriptions_expiry ON push_subscriptions (expires_at);

CREATE TABLE webhooks (
    webhook_id uuid        PRIMARY KEY,
    url        text        NOT NULL,
    types      text[]      NOT NULL,
    -- What deliveries are signed with, sealed.
    secret     bytea       NOT NULL,
    enabled    boolean     NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What came before a webhook was made is none of its business.
CREATE TABLE webhook_starts (
    webhook_id uuid     NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    topic      smallint NOT NULL,
    shard      smallint NOT NULL,
    position   bigint   NOT NULL,
    PRIMARY KEY (webhook_id, topic, shard)
);

-- Up to where each shard was looked at. It never goes back, whatever becomes of checkpoints: what was told is not told again.
CREATE TABLE notification_marks (
    topic    smallint NOT NULL,
    shard    smallint NOT NULL,
    position bigint   NOT NULL,
    PRIMARY KEY (topic, shard)
) WITH (fillfactor = 10);

-- Messages whose members are still to be found: once the read models have got there.
CREATE TABLE notifiable_messages (
    event_id        uuid        PRIMARY KEY,
    topic           smallint    NOT NULL,
    shard           smallint    NOT NULL,
    position        bigint      NOT NULL,
    conversation_id uuid        NOT NULL,
    seq             bigint      NOT NULL,
    message_id      uuid        NOT NULL,
    sender_id       uuid        NOT NULL,
    at              timestamptz NOT NULL
);

-- What is to be sent to whom; a row goes once its receiver has taken it.
CREATE TABLE deliveries (
    event_id        uuid        NOT NULL,
    -- A webhook, or the `target_id` of a subscription.
    target_id       uuid        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('push', 'webhook')),
    event_type      text        NOT NULL,
    -- Of a webhook's the event, of a push what it tells.
    body            json        NOT NULL,
    -- Of a push.
    user_id         uuid,
    conversation_id uuid,
    seq             bigint,
    -- When it happened.
    at              timestamptz NOT NULL,
    -- When it may be taken to be sent; whoever takes it moves this on, so that it is taken again if nothing comes of it.
    due_at          timestamptz NOT NULL,
    attempts        integer     NOT NULL DEFAULT 0,
    error           text,
    PRIMARY KEY (event_id, target_id)
) WITH (fillfactor = 70);
CREATE INDEX deliveries_pushes ON deliveries (due_at) WHERE kind = 'push';
CREATE INDEX deliveries_targets ON deliveries (target_id, due_at);

-- What was given up.
CREATE TABLE dead_deliveries (
    event_id        uuid        NOT NULL,
    target_id       uuid        NOT NULL,
    kind            text        NOT NULL,
    event_type      text        NOT NULL,
    body            json        NOT NULL,
    user_id         uuid,
    conversation_id uuid,
    seq             bigint,
    at              timestamptz NOT NULL,
    attempts        integer     NOT NULL,
    error           text        NOT NULL,
    died_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, target_id)
);
CREATE INDEX dead_deliveries_target ON dead_deliveries (target_id, died_at);
CREATE INDEX dead_deliveries_age ON dead_deliveries (died_at);
