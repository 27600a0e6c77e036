#!/bin/sh
# Runs once, in a new cluster: the database, and a role that owns it and may do nothing else.
set -eu

psql --no-psqlrc --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" --username postgres <<'SQL'
CREATE ROLE parlance LOGIN PASSWORD :'password';
CREATE DATABASE parlance OWNER parlance;
SQL
