-- Work that is divided among processes: who does which part of it, for as long as they keep saying so.

CREATE TABLE lease_members (
    duty    text        NOT NULL,
    member  uuid        NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (duty, member)
);

CREATE TABLE leases (
    duty   text     NOT NULL,
    topic  smallint NOT NULL,
    shard  smallint NOT NULL,
    member uuid     NOT NULL,
    PRIMARY KEY (duty, topic, shard)
);

-- One round of a member: says that it lives, and so keeps what it holds, hands back what it is done with, and takes what is
-- free, up to its fair share. Answers with all that it holds; `surplus` is to be handed back in a later round, once it has stopped.
--
-- Who was not heard of for `ttl` has lost its leases, and its connections are ended: a process that was stopped in a
-- transaction would keep its successor waiting for its row locks.
CREATE FUNCTION lease_round(
    the_duty text, me uuid, ttl interval, topics smallint[], shards smallint[],
    done_topics smallint[], done_shards smallint[]
) RETURNS TABLE (held_topic smallint, held_shard smallint, surplus boolean)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    moment timestamptz;
    share bigint;
    lost record;
BEGIN
    -- Rounds of one duty follow one another, so that two members never count on the same part.
    PERFORM pg_advisory_xact_lock(hashtext('parlance lease'), hashtext(the_duty));
    moment := clock_timestamp();
    INSERT INTO lease_members VALUES (the_duty, me, moment)
        ON CONFLICT (duty, member) DO UPDATE SET seen_at = excluded.seen_at;
    FOR lost IN DELETE FROM lease_members m WHERE m.duty = the_duty AND m.seen_at < moment - ttl RETURNING m.member LOOP
        PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a
          WHERE a.datname = current_database() AND a.application_name = lease_application(the_duty, lost.member);
        DELETE FROM leases l WHERE l.duty = the_duty AND l.member = lost.member;
    END LOOP;
    DELETE FROM leases l USING unnest(done_topics, done_shards) AS d(topic, shard)
      WHERE l.duty = the_duty AND l.member = me AND l.topic = d.topic AND l.shard = d.shard;
    -- Shares differ by one at most; the first members by id have the larger ones.
    SELECT cardinality(topics) / count(*)
           + (count(*) FILTER (WHERE m.member < me) < cardinality(topics) % count(*))::integer
      INTO share FROM lease_members m WHERE m.duty = the_duty;
    INSERT INTO leases
        SELECT the_duty, p.topic, p.shard, me
          FROM unnest(topics, shards) AS p(topic, shard)
         WHERE NOT EXISTS (
               SELECT FROM leases l WHERE l.duty = the_duty AND l.topic = p.topic AND l.shard = p.shard)
         ORDER BY p.topic, p.shard
         LIMIT greatest(0, share - (SELECT count(*) FROM leases l WHERE l.duty = the_duty AND l.member = me));
    RETURN QUERY
        SELECT l.topic, l.shard, row_number() OVER (ORDER BY l.topic, l.shard) > share
          FROM leases l WHERE l.duty = the_duty AND l.member = me;
END $$;

-- What the connections of a member call themselves, at most 63 bytes.
CREATE FUNCTION lease_application(duty text, member uuid) RETURNS text
LANGUAGE sql IMMUTABLE RETURN 'parlance ' || duty || ' ' || member;
