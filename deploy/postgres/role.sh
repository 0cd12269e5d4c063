#!/bin/sh
# Creates the database role of the service: the owner of its database, without other privileges. Runs at every `docker
# compose up` as the superuser, whose name is in the environment and whose password is a secret; it is idempotent.
set -eu
PGPASSWORD=$(cat /run/secrets/postgres-password)
export PGPASSWORD
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 <<'SQL'
\set password `cat /run/secrets/service-password`
SELECT 'CREATE ROLE basin_service' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'basin_service') \gexec
ALTER ROLE basin_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
ALTER DATABASE basin OWNER TO basin_service;
REVOKE ALL ON DATABASE basin, postgres, template1 FROM PUBLIC;
-- Objects that the superuser owns, from an earlier release or from the restore of one of its backups.
SELECT format('ALTER TABLE %s OWNER TO basin_service', oid::regclass) FROM pg_class
  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner <> 'basin_service'::regrole \gexec
SELECT format('ALTER FUNCTION %s OWNER TO basin_service', oid::regprocedure) FROM pg_proc
  WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'basin\_%' AND proowner <> 'basin_service'::regrole \gexec
SQL
