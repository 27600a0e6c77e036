-- What was signed of the log's chains, statement by statement; the same stands in a file outside, which is the one to trust.
CREATE TABLE audit_heads (
    number    bigint      PRIMARY KEY,
    at        timestamptz NOT NULL,
    -- Who signed it: the beginning of the hash of the public key.
    key_id    text        NOT NULL,
    -- Byte for byte as it was signed, with the signature.
    statement text        NOT NULL
);
