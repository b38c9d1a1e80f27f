DO $$ DECLARE r text; BEGIN
  FOREACH r IN ARRAY ARRAY['hafog_repl', 'hafog_rewind', 'hafog_agent', 'hafog_probe'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
  END LOOP;
END $$;

ALTER ROLE hafog_repl LOGIN REPLICATION;

ALTER ROLE hafog_rewind LOGIN;

ALTER ROLE hafog_agent LOGIN;

ALTER ROLE hafog_probe LOGIN;

GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean), pg_catalog.pg_stat_file(text, boolean),
  pg_catalog.pg_read_binary_file(text), pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO hafog_rewind;

GRANT pg_monitor TO hafog_agent;

GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO hafog_agent;

DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_checkpoint') THEN
    GRANT pg_checkpoint TO hafog_rewind, hafog_agent;
  END IF;
END $$;

REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;

GRANT CONNECT ON DATABASE postgres TO hafog_rewind, hafog_agent;

CREATE SCHEMA IF NOT EXISTS hafog;

CREATE TABLE IF NOT EXISTS hafog.heartbeat (id integer PRIMARY KEY, seq bigint NOT NULL, at timestamptz NOT NULL);

GRANT USAGE ON SCHEMA hafog TO hafog_agent;

GRANT SELECT, INSERT, UPDATE ON hafog.heartbeat TO hafog_agent;

