-- The event log: the sole truth. Only the crate `event-store` writes here.

-- What is fixed when the database is made.
CREATE TABLE settings (
    only_row   boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    shards     smallint NOT NULL CHECK (shards BETWEEN 4 AND 1024)
);

-- The head and the hash chain of each shard. The row lock, held to commit, makes positions dense and commit-ordered.
CREATE TABLE shards (
    topic smallint NOT NULL,
    shard smallint NOT NULL,
    head  bigint   NOT NULL DEFAULT 0,
    chain bytea    NOT NULL,
    PRIMARY KEY (topic, shard)
) WITH (fillfactor = 10);

CREATE TABLE events (
    topic          smallint    NOT NULL,
    shard          smallint    NOT NULL,
    position       bigint      NOT NULL,
    -- The ordering key: the conversation, or the user.
    key            uuid        NOT NULL,
    -- Dense number within the key, of numbered events alone.
    seq            bigint,
    aggregate_type smallint    NOT NULL,
    aggregate_id   uuid        NOT NULL,
    sequence       integer     NOT NULL,
    event_id       uuid        NOT NULL,
    event_type     text        NOT NULL,
    event_version  smallint    NOT NULL,
    at             timestamptz NOT NULL,
    -- `json`, not `jsonb`: the hash is over the stored bytes.
    payload        json        NOT NULL,
    -- Correlation, causation, trace; null where the event is its own cause.
    metadata       json,
    -- SHA-256 of the predecessor's hash and this row's canonical bytes.
    hash           bytea       NOT NULL,
    PRIMARY KEY (topic, shard, position)
);

-- Optimistic concurrency; and idempotency, since a message's id is its client's.
CREATE UNIQUE INDEX events_stream ON events (aggregate_type, aggregate_id, sequence);
-- The committed head of a conversation is one backward step in this index.
CREATE UNIQUE INDEX events_numbered ON events (key, seq) WHERE seq IS NOT NULL;

-- Unique values and command-side look-ups, changed in the append's own transaction.
CREATE TABLE keys (
    scope text NOT NULL,
    key   text COLLATE "C" NOT NULL,
    owner uuid NOT NULL,
    PRIMARY KEY (scope, key)
);

-- One append: every command that waited, in one transaction.
--
-- Row locks come first, in shard order, before anything draws a number. A head that moved since the caller saw it
-- raises PA001 and nothing is written; a taken key raises unique_violation on `keys_pkey`.
CREATE FUNCTION append(
    in_topics smallint[], in_shards smallint[], in_seen bigint[], in_heads bigint[], in_chains bytea[],
    ev_topic smallint[], ev_shard smallint[], ev_position bigint[], ev_key uuid[], ev_seq bigint[],
    ev_aggregate_type smallint[], ev_aggregate_id uuid[], ev_sequence integer[], ev_event_id uuid[],
    ev_event_type text[], ev_event_version smallint[], ev_at timestamptz[], ev_payload text[], ev_metadata text[],
    ev_hash bytea[],
    key_op smallint[], key_scope text[], key_key text[], key_owner uuid[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    -- The update below locks a single row just as well.
    IF cardinality(in_shards) > 1 THEN
        PERFORM 1 FROM log.shards s
          JOIN unnest(in_topics, in_shards) AS u(topic, shard) USING (topic, shard)
         ORDER BY s.topic, s.shard FOR UPDATE OF s;
    END IF;

    UPDATE log.shards s SET head = u.head, chain = u.chain
      FROM unnest(in_topics, in_shards, in_seen, in_heads, in_chains) AS u(topic, shard, seen, head, chain)
     WHERE s.topic = u.topic AND s.shard = u.shard AND s.head = u.seen;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(in_shards) THEN
        RAISE EXCEPTION 'a shard head moved' USING ERRCODE = 'PA001';
    END IF;

    INSERT INTO log.events (topic, shard, position, key, seq, aggregate_type, aggregate_id, sequence, event_id,
                            event_type, event_version, at, payload, metadata, hash)
    -- In the select list, sets are unrolled row by row; in FROM, each would be stored first (2 us a row more).
    SELECT unnest(ev_topic), unnest(ev_shard), unnest(ev_position), unnest(ev_key), unnest(ev_seq),
           unnest(ev_aggregate_type), unnest(ev_aggregate_id), unnest(ev_sequence), unnest(ev_event_id),
           unnest(ev_event_type), unnest(ev_event_version), unnest(ev_at), unnest(ev_payload)::json,
           unnest(ev_metadata)::json, unnest(ev_hash);

    IF cardinality(key_op) > 0 THEN
        -- 0 releases, 1 puts (replacing), 2 claims (refused where another owner has it). In this order, so that
        -- a value released in a batch may be claimed in it.
        DELETE FROM log.keys k USING unnest(key_op, key_scope, key_key) AS u(op, scope, key)
         WHERE u.op = 0 AND k.scope = u.scope AND k.key = u.key;
        INSERT INTO log.keys (scope, key, owner)
        SELECT scope, key, owner FROM unnest(key_op, key_scope, key_key, key_owner) AS u(op, scope, key, owner)
         WHERE u.op = 1
            ON CONFLICT (scope, key) DO UPDATE SET owner = excluded.owner;
        INSERT INTO log.keys (scope, key, owner)
        SELECT scope, key, owner FROM unnest(key_op, key_scope, key_key, key_owner) AS u(op, scope, key, owner)
         WHERE u.op = 2;
    END IF;
END $$;

-- The same rows under postgres-es's column names and in serde's usual form of an enum, for tools of that ecosystem.
-- Its ids are texts, which no index helps to find.
CREATE VIEW postgres_es_events AS
SELECT CASE aggregate_type
           WHEN 1 THEN 'user' WHEN 2 THEN 'session' WHEN 3 THEN 'conversation' WHEN 4 THEN 'message' WHEN 5 THEN 'receipt'
       END AS aggregate_type,
       aggregate_id::text AS aggregate_id,
       sequence::bigint AS sequence,
       event_type,
       event_version::text AS event_version,
       json_build_object(event_type, payload) AS payload,
       coalesce(metadata, '{}'::json) AS metadata
  FROM events;
