CREATE SCHEMA IF NOT EXISTS hafog;

CREATE TABLE IF NOT EXISTS hafog.probe (id integer PRIMARY KEY, at timestamptz NOT NULL);

GRANT USAGE ON SCHEMA hafog TO hafog_agent, hafog_probe;

GRANT SELECT, INSERT, UPDATE ON hafog.probe TO hafog_agent, hafog_probe;

