-- The trace that a message is part of, for the spans of its pushes; of most there is none.
ALTER TABLE notifiable_messages ADD COLUMN traceparent text;
