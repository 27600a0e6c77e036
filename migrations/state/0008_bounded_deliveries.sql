-- What waits for one webhook is bounded, by how long it has waited too. What is tried again from the dead letters begins anew.
ALTER TABLE deliveries ADD COLUMN since timestamptz NOT NULL DEFAULT now();
