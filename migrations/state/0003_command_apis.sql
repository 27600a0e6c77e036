-- Who takes commands where, for as long as they keep saying so.
CREATE TABLE command_apis (
    -- Scheme, host and port, and a path where there is one.
    url     text        PRIMARY KEY,
    -- The process that serves there: one that stops takes itself out, not its successor.
    member  uuid        NOT NULL,
    seen_at timestamptz NOT NULL
);
