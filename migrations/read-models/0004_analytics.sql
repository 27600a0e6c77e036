-- Projection `analytics`: what operators ask, by views that stay; the tables behind them are its own affair.
--
-- Times are milliseconds since 1970 and hours and days are UTC's. What several shards count for all conversations stands
-- in a row a shard, since each shard has another writer.

-- How far each conversation was counted: a numbered event counts once, however often it comes.
CREATE TABLE analytics_conversations (
    conversation_id uuid   PRIMARY KEY,
    last_seq        bigint NOT NULL
) WITH (fillfactor = 50);

-- The watermarks of those who are members now.
CREATE TABLE analytics_members (
    conversation_id uuid   NOT NULL,
    user_id         uuid   NOT NULL,
    delivered_to    bigint NOT NULL,
    read_to         bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 70);

-- When messages were sent that some member has yet to read.
CREATE TABLE analytics_messages (
    conversation_id uuid   NOT NULL,
    seq             bigint NOT NULL,
    sender_id       uuid   NOT NULL,
    sent_ms         bigint NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);

CREATE TABLE analytics_messages_by_hour (
    conversation_id uuid        NOT NULL,
    hour            timestamptz NOT NULL,
    messages        bigint      NOT NULL,
    PRIMARY KEY (conversation_id, hour)
) WITH (fillfactor = 70);
-- For the hours of a dashboard, over all conversations.
CREATE INDEX analytics_messages_by_hour_hour ON analytics_messages_by_hour (hour);

CREATE TABLE analytics_messages_by_hour_in_all (
    hour     timestamptz NOT NULL,
    shard    smallint    NOT NULL,
    messages bigint      NOT NULL,
    PRIMARY KEY (hour, shard)
) WITH (fillfactor = 50);

-- `mark`: 0 delivered, 1 read. `bucket`: see delay_buckets.
CREATE TABLE analytics_delays (
    conversation_id uuid        NOT NULL,
    mark            smallint    NOT NULL,
    hour            timestamptz NOT NULL,
    bucket          smallint    NOT NULL,
    passed          bigint      NOT NULL,
    sum_ms          bigint      NOT NULL,
    PRIMARY KEY (conversation_id, mark, hour, bucket)
) WITH (fillfactor = 70);

CREATE TABLE analytics_delays_in_all (
    mark   smallint    NOT NULL,
    hour   timestamptz NOT NULL,
    bucket smallint    NOT NULL,
    shard  smallint    NOT NULL,
    passed bigint      NOT NULL,
    sum_ms bigint      NOT NULL,
    PRIMARY KEY (mark, hour, bucket, shard)
) WITH (fillfactor = 50);

CREATE TABLE analytics_active_users (
    day     date NOT NULL,
    user_id uuid NOT NULL,
    PRIMARY KEY (day, user_id)
);

CREATE TABLE analytics_active_members (
    conversation_id uuid NOT NULL,
    day             date NOT NULL,
    user_id         uuid NOT NULL,
    PRIMARY KEY (conversation_id, day, user_id)
);

-- The views. Their names and columns stay as they are; they outlive a rebuild, with what is granted on them.

CREATE VIEW daily_active_users AS
SELECT day, NULL::uuid AS conversation_id, count(*) AS users FROM analytics_active_users GROUP BY day
 UNION ALL
SELECT day, conversation_id, count(*) FROM analytics_active_members GROUP BY conversation_id, day;

COMMENT ON VIEW daily_active_users IS
    'How many users were active on a day: in all, and in each conversation. Active in a conversation is who sent a message there, or read one (moved the own read watermark); active at all is who was active in a conversation, or started or refreshed a session. What a device does by itself (taking delivery) does not count. A day on which nobody was has no row.';
COMMENT ON COLUMN daily_active_users.day IS 'The day, UTC.';
COMMENT ON COLUMN daily_active_users.conversation_id IS 'The conversation; null for all users of the installation.';
COMMENT ON COLUMN daily_active_users.users IS 'Different users who were active. Those of conversations do not add up to those in all: one may be active in many, or in none.';

CREATE VIEW messages_by_hour AS
SELECT hour, NULL::uuid AS conversation_id, sum(messages)::bigint AS messages
  FROM analytics_messages_by_hour_in_all GROUP BY hour
 UNION ALL
SELECT hour, conversation_id, messages FROM analytics_messages_by_hour;

COMMENT ON VIEW messages_by_hour IS
    'How many messages were sent in an hour: in all, and in each conversation. Messages that were edited or deleted later count as sent. An hour without one has no row.';
COMMENT ON COLUMN messages_by_hour.hour IS 'When the hour began.';
COMMENT ON COLUMN messages_by_hour.conversation_id IS 'The conversation; null for all of them.';
COMMENT ON COLUMN messages_by_hour.messages IS 'Messages sent. Those of the conversations add up to those in all.';

CREATE VIEW delay_buckets AS
SELECT bucket::smallint, over_ms::bigint, up_to_ms::bigint
  FROM (VALUES (0, NULL, 10), (1, 10, 25), (2, 25, 50), (3, 50, 100), (4, 100, 250), (5, 250, 500), (6, 500, 1000),
               (7, 1000, 2500), (8, 2500, 5000), (9, 5000, 10000), (10, 10000, 30000), (11, 30000, 60000),
               (12, 60000, 300000), (13, 300000, 3600000), (14, 3600000, 86400000), (15, 86400000, NULL))
    AS b(bucket, over_ms, up_to_ms);

COMMENT ON VIEW delay_buckets IS 'The buckets of the histograms of delays. They never change.';
COMMENT ON COLUMN delay_buckets.bucket IS 'Its number.';
COMMENT ON COLUMN delay_buckets.over_ms IS 'Delays in it are longer than so many milliseconds; null in the first, which begins with 0.';
COMMENT ON COLUMN delay_buckets.up_to_ms IS 'Delays in it are at most so many milliseconds; null in the last, which has no end.';

CREATE VIEW delivery_delays AS
SELECT hour, NULL::uuid AS conversation_id, over_ms, up_to_ms, deliveries, sum_ms
  FROM (SELECT hour, bucket, sum(passed)::bigint AS deliveries, sum(sum_ms)::bigint AS sum_ms
          FROM analytics_delays_in_all WHERE mark = 0 GROUP BY hour, bucket) AS d
  JOIN delay_buckets USING (bucket)
 UNION ALL
SELECT hour, conversation_id, over_ms, up_to_ms, passed, sum_ms
  FROM analytics_delays JOIN delay_buckets USING (bucket) WHERE mark = 0;

COMMENT ON VIEW delivery_delays IS
    'How long messages took to be delivered, as a histogram: in all, and in each conversation. One delivery is one message to one of those who were members when it was sent, without its sender; its delay is from the time of message.sent to the time of the message.delivered or message.read by which the recipient''s watermark passed it, and 0 where clocks say that it was earlier. What is not delivered yet, or was not when the recipient left, is not counted. A bucket in which there is none has no row.';
COMMENT ON COLUMN delivery_delays.hour IS 'The hour, by when it began, in which messages were delivered (not sent): hours that are over do not change.';
COMMENT ON COLUMN delivery_delays.conversation_id IS 'The conversation; null for all of them.';
COMMENT ON COLUMN delivery_delays.over_ms IS 'The bucket: delays longer than so many milliseconds; null in the first, which begins with 0.';
COMMENT ON COLUMN delivery_delays.up_to_ms IS 'The bucket: delays of at most so many milliseconds; null in the last, which has no end.';
COMMENT ON COLUMN delivery_delays.deliveries IS 'Deliveries whose delay is in this bucket alone: the counts are not cumulative.';
COMMENT ON COLUMN delivery_delays.sum_ms IS 'The sum of their delays, in milliseconds.';

CREATE VIEW read_delays AS
SELECT hour, NULL::uuid AS conversation_id, over_ms, up_to_ms, reads, sum_ms
  FROM (SELECT hour, bucket, sum(passed)::bigint AS reads, sum(sum_ms)::bigint AS sum_ms
          FROM analytics_delays_in_all WHERE mark = 1 GROUP BY hour, bucket) AS d
  JOIN delay_buckets USING (bucket)
 UNION ALL
SELECT hour, conversation_id, over_ms, up_to_ms, passed, sum_ms
  FROM analytics_delays JOIN delay_buckets USING (bucket) WHERE mark = 1;

COMMENT ON VIEW read_delays IS
    'How long messages took to be read, as a histogram: in all, and in each conversation. As delivery_delays, with the time of the message.read by which the recipient''s watermark passed the message.';
COMMENT ON COLUMN read_delays.hour IS 'The hour, by when it began, in which messages were read (not sent): hours that are over do not change.';
COMMENT ON COLUMN read_delays.conversation_id IS 'The conversation; null for all of them.';
COMMENT ON COLUMN read_delays.over_ms IS 'The bucket: delays longer than so many milliseconds; null in the first, which begins with 0.';
COMMENT ON COLUMN read_delays.up_to_ms IS 'The bucket: delays of at most so many milliseconds; null in the last, which has no end.';
COMMENT ON COLUMN read_delays.reads IS 'Messages read, each by each recipient, whose delay is in this bucket alone: the counts are not cumulative.';
COMMENT ON COLUMN read_delays.sum_ms IS 'The sum of their delays, in milliseconds.';

CREATE FUNCTION delay_quantile(quantile double precision, over_ms bigint[], up_to_ms bigint[], counts bigint[])
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN high IS NULL THEN low ELSE low + (high - low) * (quantile * total - before) / count END
      FROM (SELECT low, high, count, sum(count) OVER (ORDER BY low) - count AS before, sum(count) OVER () AS total
              FROM (SELECT coalesce(low, 0)::double precision AS low, high::double precision AS high,
                           sum(count)::double precision AS count
                      FROM unnest(over_ms, up_to_ms, counts) AS b(low, high, count)
                     GROUP BY 1, 2) AS buckets) AS places
     WHERE count > 0 AND before + count >= quantile * total
     ORDER BY low LIMIT 1
$$;

COMMENT ON FUNCTION delay_quantile IS
    'The delay in milliseconds that so much of a histogram does not exceed (0.95: 95 %), from rows of delivery_delays or read_delays in any order, by array_agg of each column. Within a bucket delays are taken as evenly spread; in the one without an end, as its beginning. Null without any delays.';
