-- Whose checkpoint it is: queries wait for the read models alone.
ALTER TABLE checkpoints ADD COLUMN consumer text NOT NULL DEFAULT 'read_models';
