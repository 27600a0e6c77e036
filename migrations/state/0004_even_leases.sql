-- A share has shards of every topic: by topic, of two members one would have all users, and the other all conversations,
-- which are nearly all the work. All else is as it was.

CREATE OR REPLACE FUNCTION lease_round(
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
         ORDER BY p.shard, p.topic
         LIMIT greatest(0, share - (SELECT count(*) FROM leases l WHERE l.duty = the_duty AND l.member = me));
    RETURN QUERY
        SELECT l.topic, l.shard, row_number() OVER (ORDER BY l.shard, l.topic) > share
          FROM leases l WHERE l.duty = the_duty AND l.member = me;
END $$;
