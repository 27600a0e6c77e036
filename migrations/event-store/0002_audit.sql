-- Readings of the audit have a name too.
CREATE OR REPLACE VIEW postgres_es_events AS
SELECT CASE aggregate_type
           WHEN 1 THEN 'user' WHEN 2 THEN 'session' WHEN 3 THEN 'conversation' WHEN 4 THEN 'message' WHEN 5 THEN 'receipt'
           WHEN 7 THEN 'audit_reading'
       END AS aggregate_type,
       aggregate_id::text AS aggregate_id,
       sequence::bigint AS sequence,
       event_type,
       event_version::text AS event_version,
       json_build_object(event_type, payload) AS payload,
       coalesce(metadata, '{}'::json) AS metadata
  FROM events;
