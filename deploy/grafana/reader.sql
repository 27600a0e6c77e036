-- The role by which a dashboard reads the views of analytics, and nothing else: no table, no message, no user's name.
--
-- As a superuser, once, after `parlance migrate`; again at any time changes nothing:
--   psql --dbname parlance --file reader.sql --command '\password parlance_grafana'

DO $$
BEGIN
    CREATE ROLE parlance_grafana LOGIN CONNECTION LIMIT 10;
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$;
ALTER ROLE parlance_grafana SET default_transaction_read_only = on;
ALTER ROLE parlance_grafana SET statement_timeout = '30s';
ALTER ROLE parlance_grafana SET timezone = 'UTC';

-- A rebuild keeps the views as they are, and with them these grants.
GRANT USAGE ON SCHEMA read TO parlance_grafana;
GRANT SELECT ON read.daily_active_users, read.messages_by_hour, read.delivery_delays, read.read_delays,
    read.delay_buckets TO parlance_grafana;
