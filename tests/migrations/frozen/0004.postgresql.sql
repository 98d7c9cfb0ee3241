
BEGIN;
DO $$ BEGIN
  IF to_regclass('sessionstore_schema') IS NOT NULL THEN RAISE EXCEPTION
    'this script is for a database without sessionstore tables; nothing was done'; END IF; END $$;
CREATE TABLE sessionstore_alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT sessionstore_alembic_version_pkc PRIMARY KEY (version_num)
);
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '30s';
CREATE TABLE sessionstore_sessions (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    id TEXT COLLATE "C" NOT NULL, 
    user_id TEXT COLLATE "C" NOT NULL, 
    model TEXT NOT NULL, 
    max_turns BIGINT NOT NULL, 
    system_message TEXT, 
    title TEXT, 
    summary TEXT, 
    active_seed_id TEXT, 
    active_persona_id TEXT, 
    parent_id TEXT COLLATE "C", 
    fork_position BIGINT, 
    first_position BIGINT NOT NULL, 
    next_position BIGINT NOT NULL, 
    generation BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    next_event BIGINT NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    last_accessed_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    activity_bucket BIGINT NOT NULL, 
    CONSTRAINT ck_sessionstore_sessions_positions CHECK (first_position >= 0 AND next_position >= first_position), 
    CONSTRAINT ck_sessionstore_sessions_counters CHECK (version >= 0 AND max_turns >= 0 AND next_event >= 0)
)
 WITH (fillfactor = 85);
COMMENT ON TABLE sessionstore_sessions IS 'One row a conversation.';
COMMENT ON COLUMN sessionstore_sessions.tenant_id IS 'isolation boundary; '''' if only one';
COMMENT ON COLUMN sessionstore_sessions.id IS 'the caller''s id, opaque, compared bytewise';
COMMENT ON COLUMN sessionstore_sessions.user_id IS 'whose session it is; '''' if nobody''s';
COMMENT ON COLUMN sessionstore_sessions.model IS 'model the session runs on; '''' if unset';
COMMENT ON COLUMN sessionstore_sessions.max_turns IS 'turn limit of the agent; 0 if unset';
COMMENT ON COLUMN sessionstore_sessions.system_message IS 'system prompt';
COMMENT ON COLUMN sessionstore_sessions.title IS 'title for people';
COMMENT ON COLUMN sessionstore_sessions.summary IS 'summary of the history';
COMMENT ON COLUMN sessionstore_sessions.active_seed_id IS 'seed in use';
COMMENT ON COLUMN sessionstore_sessions.active_persona_id IS 'persona in use';
COMMENT ON COLUMN sessionstore_sessions.parent_id IS 'session it was forked from; it may be gone';
COMMENT ON COLUMN sessionstore_sessions.fork_position IS 'its next_position at the fork';
COMMENT ON COLUMN sessionstore_sessions.first_position IS 'position of the oldest kept message';
COMMENT ON COLUMN sessionstore_sessions.next_position IS 'next position to assign; length = next - first';
COMMENT ON COLUMN sessionstore_sessions.generation IS 'version of the history; grows when it is rewritten';
COMMENT ON COLUMN sessionstore_sessions.version IS 'grows by one with every change';
COMMENT ON COLUMN sessionstore_sessions.next_event IS 'number of the next event';
COMMENT ON COLUMN sessionstore_sessions.created_at IS 'UTC (SQLite: microseconds since 1970)';
COMMENT ON COLUMN sessionstore_sessions.updated_at IS 'last change, UTC (SQLite: microseconds since 1970)';
COMMENT ON COLUMN sessionstore_sessions.last_accessed_at IS 'last use, UTC (SQLite: microseconds since 1970)';
COMMENT ON COLUMN sessionstore_sessions.activity_bucket IS 'updated_at in quarters of an hour since 1970';
CREATE INDEX ix_sessionstore_sessions_activity ON sessionstore_sessions (tenant_id, activity_bucket DESC);
CREATE INDEX ix_sessionstore_sessions_user_activity ON sessionstore_sessions (tenant_id, user_id, activity_bucket DESC);
CREATE INDEX ix_sessionstore_sessions_parent ON sessionstore_sessions (tenant_id, parent_id, id) WHERE parent_id IS NOT NULL;
ALTER TABLE sessionstore_sessions ADD CONSTRAINT pk_sessionstore_sessions PRIMARY KEY (tenant_id, id);
CREATE TABLE sessionstore_messages (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    session_id TEXT COLLATE "C" NOT NULL, 
    position BIGINT NOT NULL, 
    role TEXT NOT NULL, 
    body JSON NOT NULL, 
    plain BOOLEAN NOT NULL, 
    message_id TEXT COLLATE "C", 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    seed_id TEXT, 
    phase_reached TEXT, 
    evaluation_passed BOOLEAN, 
    CONSTRAINT pk_sessionstore_messages PRIMARY KEY (tenant_id, session_id, position), 
    CONSTRAINT fk_sessionstore_messages_sessionstore_sessions FOREIGN KEY(tenant_id, session_id) REFERENCES sessionstore_sessions (tenant_id, id) ON DELETE CASCADE, 
    CONSTRAINT ck_sessionstore_messages_position CHECK (position >= 0)
);
COMMENT ON TABLE sessionstore_messages IS 'The messages; kept positions of a session are the range [first_position, next_position).';
COMMENT ON COLUMN sessionstore_messages.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_messages.session_id IS 'the session it belongs to';
COMMENT ON COLUMN sessionstore_messages.position IS '0-based place, dense in a session';
COMMENT ON COLUMN sessionstore_messages.role IS 'who the message is from';
COMMENT ON COLUMN sessionstore_messages.body IS 'the caller''s JSON object, verbatim';
COMMENT ON COLUMN sessionstore_messages.plain IS 'safe for SQL JSON functions: check it before using them';
COMMENT ON COLUMN sessionstore_messages.message_id IS 'the caller''s id, unique in a session: safe retries';
COMMENT ON COLUMN sessionstore_messages.created_at IS 'UTC (SQLite: microseconds since 1970)';
COMMENT ON COLUMN sessionstore_messages.seed_id IS 'copy of body.seed_id if it is a string';
COMMENT ON COLUMN sessionstore_messages.phase_reached IS 'copy of body.phase_reached if it is a string';
COMMENT ON COLUMN sessionstore_messages.evaluation_passed IS 'copy of body.evaluation_passed if boolean';
CREATE UNIQUE INDEX uq_sessionstore_messages_message_id ON sessionstore_messages (tenant_id, session_id, message_id) WHERE message_id IS NOT NULL;
CREATE TABLE sessionstore_metadata (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    session_id TEXT COLLATE "C" NOT NULL, 
    key TEXT COLLATE "C" NOT NULL, 
    value JSON NOT NULL, 
    plain BOOLEAN NOT NULL, 
    value_key TEXT COLLATE "C", 
    CONSTRAINT fk_sessionstore_metadata_sessionstore_sessions FOREIGN KEY(tenant_id, session_id) REFERENCES sessionstore_sessions (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE sessionstore_metadata IS 'Metadata of sessions, one row a key.';
COMMENT ON COLUMN sessionstore_metadata.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_metadata.session_id IS 'the session it belongs to';
COMMENT ON COLUMN sessionstore_metadata.key IS 'the caller''s key';
COMMENT ON COLUMN sessionstore_metadata.value IS 'any JSON value, verbatim';
COMMENT ON COLUMN sessionstore_metadata.plain IS 'safe for SQL JSON functions: check it before using them';
COMMENT ON COLUMN sessionstore_metadata.value_key IS 'first 128 characters of an encoded scalar';
CREATE INDEX ix_sessionstore_metadata_value ON sessionstore_metadata (tenant_id, key, value_key, session_id);
ALTER TABLE sessionstore_metadata ADD CONSTRAINT pk_sessionstore_metadata PRIMARY KEY (tenant_id, session_id, key);
CREATE TABLE sessionstore_documents (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    category TEXT COLLATE "C" NOT NULL, 
    name TEXT COLLATE "C" NOT NULL, 
    format TEXT COLLATE "C" NOT NULL, 
    body JSON NOT NULL, 
    plain BOOLEAN NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_sessionstore_documents PRIMARY KEY (tenant_id, category, name, format), 
    CONSTRAINT ck_sessionstore_documents_format CHECK (format IN ('json', 'markdown'))
);
COMMENT ON TABLE sessionstore_documents IS 'Documents by category and name; JSON and markdown of one name coexist.';
COMMENT ON COLUMN sessionstore_documents.tenant_id IS 'isolation boundary; '''' if only one';
COMMENT ON COLUMN sessionstore_documents.category IS 'group of documents, may contain slashes';
COMMENT ON COLUMN sessionstore_documents.name IS 'name in its category';
COMMENT ON COLUMN sessionstore_documents.format IS '''json'' or ''markdown''';
COMMENT ON COLUMN sessionstore_documents.body IS 'the value; markdown is one JSON string';
COMMENT ON COLUMN sessionstore_documents.plain IS 'safe for SQL JSON functions: check it before using them';
COMMENT ON COLUMN sessionstore_documents.created_at IS 'UTC (SQLite: microseconds since 1970)';
COMMENT ON COLUMN sessionstore_documents.updated_at IS 'UTC (SQLite: microseconds since 1970)';
CREATE TABLE sessionstore_maintenance (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    job TEXT COLLATE "C" NOT NULL, 
    last_run_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_sessionstore_maintenance PRIMARY KEY (tenant_id, job)
);
COMMENT ON TABLE sessionstore_maintenance IS 'One row a job: of many processes, one runs it in a cooldown.';
COMMENT ON COLUMN sessionstore_maintenance.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_maintenance.job IS 'name of the job';
COMMENT ON COLUMN sessionstore_maintenance.last_run_at IS 'by the database''s clock';
CREATE VIEW sessionstore_message_texts AS SELECT tenant_id, session_id, position, message_id, role, CASE WHEN plain THEN body ->> 'content' END AS text, plain, created_at, octet_length(body::text) AS bytes FROM sessionstore_messages;
COMMENT ON VIEW sessionstore_message_texts IS 'One row a message, for reading with SQL: safe on any body, unlike JSON functions on the table.';
COMMENT ON COLUMN sessionstore_message_texts.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_message_texts.session_id IS 'the session it belongs to';
COMMENT ON COLUMN sessionstore_message_texts.position IS '0-based place, dense in a session';
COMMENT ON COLUMN sessionstore_message_texts.message_id IS 'the caller''s id, unique in a session';
COMMENT ON COLUMN sessionstore_message_texts.role IS 'who the message is from';
COMMENT ON COLUMN sessionstore_message_texts.text IS 'body.content as text; NULL where it has none, or plain is false';
COMMENT ON COLUMN sessionstore_message_texts.plain IS 'whether SQL JSON functions can read the body';
COMMENT ON COLUMN sessionstore_message_texts.created_at IS 'UTC';
COMMENT ON COLUMN sessionstore_message_texts.bytes IS 'size of the encoded body';
CREATE TABLE sessionstore_schema (
    id SMALLINT NOT NULL, 
    revision TEXT COLLATE "C" NOT NULL, 
    compatible_from TEXT COLLATE "C" NOT NULL, 
    CONSTRAINT pk_sessionstore_schema PRIMARY KEY (id), 
    CONSTRAINT ck_sessionstore_schema_one_row CHECK (id = 1)
);
COMMENT ON TABLE sessionstore_schema IS 'One row: the revision of these tables, and the oldest code that may use them.';
COMMENT ON COLUMN sessionstore_schema.id IS 'always 1';
COMMENT ON COLUMN sessionstore_schema.revision IS 'newest revision that ran';
COMMENT ON COLUMN sessionstore_schema.compatible_from IS 'oldest code, named by its revision, that may use it';
INSERT INTO sessionstore_schema (id, revision, compatible_from) VALUES (1, '0001', '0001');
INSERT INTO sessionstore_alembic_version (version_num) VALUES ('0001') RETURNING sessionstore_alembic_version.version_num;
COMMIT;
BEGIN;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM sessionstore_schema s, sessionstore_alembic_version v
    WHERE s.revision = '0001' AND v.version_num = '0001') THEN RAISE EXCEPTION
    'this step is for a database at revision 0001, and this one is at %; nothing was done',
    (SELECT revision FROM sessionstore_schema); END IF; END $$;
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '30s';
CREATE VIEW sessionstore_session_facts AS SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, next_position - first_position AS length, generation, version, created_at, updated_at, last_accessed_at FROM sessionstore_sessions;
COMMENT ON VIEW sessionstore_session_facts IS 'Sessions without contents: no title, summary or system message.';
COMMENT ON COLUMN sessionstore_session_facts.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.user_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.model IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.max_turns IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.active_seed_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.active_persona_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.parent_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.fork_position IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.first_position IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.next_position IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.generation IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.version IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_session_facts.length IS 'how many messages are kept';
COMMENT ON COLUMN sessionstore_session_facts.created_at IS 'UTC';
COMMENT ON COLUMN sessionstore_session_facts.updated_at IS 'last change, UTC';
COMMENT ON COLUMN sessionstore_session_facts.last_accessed_at IS 'last use, UTC';
CREATE VIEW sessionstore_message_facts AS SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, evaluation_passed, created_at, octet_length(body::text) AS bytes FROM sessionstore_messages;
COMMENT ON VIEW sessionstore_message_facts IS 'Messages without contents: no body, but the columns that copy parts of it for filtering.';
COMMENT ON COLUMN sessionstore_message_facts.tenant_id IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.session_id IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.position IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.message_id IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.role IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.plain IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.seed_id IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.phase_reached IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.evaluation_passed IS 'as in sessionstore_messages';
COMMENT ON COLUMN sessionstore_message_facts.created_at IS 'UTC';
COMMENT ON COLUMN sessionstore_message_facts.bytes IS 'size of the encoded body';
UPDATE sessionstore_schema SET revision = '0002' WHERE id = 1;
UPDATE sessionstore_alembic_version SET version_num='0002' WHERE sessionstore_alembic_version.version_num = '0001';
COMMIT;
BEGIN;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM sessionstore_schema s, sessionstore_alembic_version v
    WHERE s.revision = '0002' AND v.version_num = '0002') THEN RAISE EXCEPTION
    'this step is for a database at revision 0002, and this one is at %; nothing was done',
    (SELECT revision FROM sessionstore_schema); END IF; END $$;
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '30s';
CREATE TABLE sessionstore_backfills (
    job TEXT COLLATE "C" NOT NULL, 
    after_key TEXT COLLATE "C", 
    total BIGINT, 
    seen BIGINT NOT NULL, 
    changed BIGINT NOT NULL, 
    unreadable BIGINT NOT NULL, 
    started_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    finished_at TIMESTAMP WITH TIME ZONE, 
    CONSTRAINT pk_sessionstore_backfills PRIMARY KEY (job)
);
COMMENT ON TABLE sessionstore_backfills IS 'One row a backfill: how far it has come.';
COMMENT ON COLUMN sessionstore_backfills.job IS 'name of the backfill';
COMMENT ON COLUMN sessionstore_backfills.after_key IS 'key of the last row it has seen, as JSON; NULL before the first and when finished';
COMMENT ON COLUMN sessionstore_backfills.total IS 'rows there were when it started, about';
COMMENT ON COLUMN sessionstore_backfills.seen IS 'rows it has looked at';
COMMENT ON COLUMN sessionstore_backfills.changed IS 'rows it has changed';
COMMENT ON COLUMN sessionstore_backfills.unreadable IS 'rows it had to leave: what they hold is not JSON';
COMMENT ON COLUMN sessionstore_backfills.started_at IS 'by the database''s clock';
COMMENT ON COLUMN sessionstore_backfills.updated_at IS 'of the last batch, by the database''s clock';
COMMENT ON COLUMN sessionstore_backfills.finished_at IS 'NULL while it is unfinished';
UPDATE sessionstore_schema SET revision = '0003' WHERE id = 1;
UPDATE sessionstore_alembic_version SET version_num='0003' WHERE sessionstore_alembic_version.version_num = '0002';
COMMIT;
BEGIN;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM sessionstore_schema s, sessionstore_alembic_version v
    WHERE s.revision = '0003' AND v.version_num = '0003') THEN RAISE EXCEPTION
    'this step is for a database at revision 0003, and this one is at %; nothing was done',
    (SELECT revision FROM sessionstore_schema); END IF; END $$;
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '30s';
CREATE TABLE sessionstore_events (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    session_id TEXT COLLATE "C" NOT NULL, 
    number BIGINT NOT NULL, 
    kind TEXT COLLATE "C" NOT NULL, 
    generation BIGINT NOT NULL, 
    first_position BIGINT NOT NULL, 
    next_position BIGINT NOT NULL, 
    payload JSON, 
    plain BOOLEAN NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_sessionstore_events PRIMARY KEY (tenant_id, session_id, number), 
    CONSTRAINT fk_sessionstore_events_sessionstore_sessions FOREIGN KEY(tenant_id, session_id) REFERENCES sessionstore_sessions (tenant_id, id) ON DELETE CASCADE, 
    CONSTRAINT ck_sessionstore_events_number CHECK (number >= 0)
);
COMMENT ON TABLE sessionstore_events IS 'What happened to sessions beside their messages; a message is an event of its own.';
COMMENT ON COLUMN sessionstore_events.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_events.session_id IS 'the session it happened to';
COMMENT ON COLUMN sessionstore_events.number IS '0-based, in the order of commits';
COMMENT ON COLUMN sessionstore_events.kind IS 'what happened: the store''s word, or the caller''s own';
COMMENT ON COLUMN sessionstore_events.generation IS 'of the session, just after it';
COMMENT ON COLUMN sessionstore_events.first_position IS 'of the session, just after it';
COMMENT ON COLUMN sessionstore_events.next_position IS 'of the session, just after it: the event''s place';
COMMENT ON COLUMN sessionstore_events.payload IS 'any JSON value, verbatim; NULL if there is none';
COMMENT ON COLUMN sessionstore_events.plain IS 'safe for SQL JSON functions: check it before using them';
COMMENT ON COLUMN sessionstore_events.created_at IS 'UTC (SQLite: microseconds since 1970)';
CREATE TABLE sessionstore_tombstones (
    tenant_id TEXT COLLATE "C" NOT NULL, 
    session_id TEXT COLLATE "C" NOT NULL, 
    generation BIGINT NOT NULL, 
    number BIGINT NOT NULL, 
    kind TEXT COLLATE "C" NOT NULL, 
    deleted_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT pk_sessionstore_tombstones PRIMARY KEY (tenant_id, session_id, generation), 
    CONSTRAINT ck_sessionstore_tombstones_kind CHECK (kind IN ('deleted', 'evicted'))
);
COMMENT ON TABLE sessionstore_tombstones IS 'Sessions that were deleted within a day, for those who watch them; nothing of their contents.';
COMMENT ON COLUMN sessionstore_tombstones.tenant_id IS 'as in sessionstore_sessions';
COMMENT ON COLUMN sessionstore_tombstones.session_id IS 'the session that is gone';
COMMENT ON COLUMN sessionstore_tombstones.generation IS 'of the session, when it went';
COMMENT ON COLUMN sessionstore_tombstones.number IS 'of this event among those of the session';
COMMENT ON COLUMN sessionstore_tombstones.kind IS '''deleted'' or ''evicted''';
COMMENT ON COLUMN sessionstore_tombstones.deleted_at IS 'UTC (SQLite: microseconds since 1970); kept for a day';
CREATE INDEX ix_sessionstore_tombstones_deleted_at ON sessionstore_tombstones (tenant_id, deleted_at);
UPDATE sessionstore_schema SET revision = '0004' WHERE id = 1;
UPDATE sessionstore_alembic_version SET version_num='0004' WHERE sessionstore_alembic_version.version_num = '0003';
COMMIT;
INSERT INTO sessionstore_backfills (job, after_key, total, seen, changed, unreadable, started_at, updated_at, finished_at) VALUES ('message-columns', NULL, NULL, '18', '0', '0', '2026-11-20 21:36:12.186172+00', '2026-11-20 21:36:12.192376+00', '2026-11-20 21:36:12.192376+00');
INSERT INTO sessionstore_documents (tenant_id, category, name, format, body, plain, created_at, updated_at) VALUES ('', 'notes/de', 'plan', 'json', E'{"z":1,"a":"\\ud800"}', 'false', '2026-11-20 21:36:12.212232+00', '2026-11-20 21:36:12.212232+00');
INSERT INTO sessionstore_documents (tenant_id, category, name, format, body, plain, created_at, updated_at) VALUES ('', 'notes/de', 'plan', 'markdown', E'"# Plan\\n"', 'true', '2026-11-20 21:36:12.210273+00', '2026-11-20 21:36:12.210273+00');
INSERT INTO sessionstore_maintenance (tenant_id, job, last_run_at) VALUES ('', 'prune', '2026-11-20 21:36:12.176279+00');
INSERT INTO sessionstore_maintenance (tenant_id, job, last_run_at) VALUES ('acme', 'prune', '2026-11-20 21:36:12.183384+00');
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket) VALUES ('', 'empty', '', '', '0', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '0', '1795210572170278', '0', '1', '2026-11-20 21:36:12.170278+00', '2026-11-20 21:36:12.170278+00', '2026-11-20 21:36:12.170278+00', '1994678');
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket) VALUES ('', 'fork', 'ann', '', '0', NULL, 'A título', NULL, NULL, NULL, 'talk', '5', '2', '5', '1795210572163901', '0', '1', '2026-11-20 21:36:12.163901+00', '2026-11-20 21:36:12.163901+00', '2026-11-20 21:36:12.163901+00', '1994678');
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket) VALUES ('', 'talk', 'ann', '', '0', NULL, 'A título', NULL, NULL, NULL, NULL, NULL, '2', '8', '1795210572136004', '4', '3', '2026-11-20 21:36:12.136004+00', '2026-11-20 21:36:12.168088+00', '2026-11-20 21:36:12.168088+00', '1994678');
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket) VALUES ('acme', 'empty', '', '', '0', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0', '0', '1795210572181665', '0', '1', '2026-11-20 21:36:12.181665+00', '2026-11-20 21:36:12.181665+00', '2026-11-20 21:36:12.181665+00', '1994678');
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket) VALUES ('acme', 'fork', 'ann', '', '0', NULL, 'A título', NULL, NULL, NULL, 'talk', '5', '2', '5', '1795210572179969', '0', '1', '2026-11-20 21:36:12.179969+00', '2026-11-20 21:36:12.179969+00', '2026-11-20 21:36:12.179969+00', '1994678');
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket) VALUES ('acme', 'talk', 'ann', '', '0', NULL, 'A título', NULL, NULL, NULL, NULL, NULL, '2', '8', '1795210572176578', '4', '3', '2026-11-20 21:36:12.176578+00', '2026-11-20 21:36:12.181313+00', '2026-11-20 21:36:12.181313+00', '1994678');
INSERT INTO sessionstore_tombstones (tenant_id, session_id, generation, number, kind, deleted_at) VALUES ('', 'gone', '1795210572170747', '1', 'deleted', '2026-11-20 21:36:12.173173+00');
INSERT INTO sessionstore_tombstones (tenant_id, session_id, generation, number, kind, deleted_at) VALUES ('acme', 'gone', '1795210572181942', '1', 'deleted', '2026-11-20 21:36:12.182841+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('', 'empty', '0', 'created', '1795210572170278', '0', '0', NULL, 'true', '2026-11-20 21:36:12.170278+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('', 'fork', '0', 'forked', '1795210572163901', '2', '5', '{"parent_id":"talk","fork_position":5}', 'true', '2026-11-20 21:36:12.163901+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('', 'talk', '0', 'created', '1795210572136004', '0', '0', NULL, 'true', '2026-11-20 21:36:12.136004+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('', 'talk', '1', 'trimmed', '1795210572136004', '2', '8', NULL, 'true', '2026-11-20 21:36:12.160066+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('', 'talk', '2', 'noted', '1795210572136004', '2', '8', E'{"role":"tool","content":[{"type":"text","text":"nul \\u0000 and half \\ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}', 'false', '2026-11-20 21:36:12.168088+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('acme', 'empty', '0', 'created', '1795210572181665', '0', '0', NULL, 'true', '2026-11-20 21:36:12.181665+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('acme', 'fork', '0', 'forked', '1795210572179969', '2', '5', '{"parent_id":"talk","fork_position":5}', 'true', '2026-11-20 21:36:12.179969+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('acme', 'talk', '0', 'created', '1795210572176578', '0', '0', NULL, 'true', '2026-11-20 21:36:12.176578+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('acme', 'talk', '1', 'trimmed', '1795210572176578', '2', '8', NULL, 'true', '2026-11-20 21:36:12.178816+00');
INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position, payload, plain, created_at) VALUES ('acme', 'talk', '2', 'noted', '1795210572176578', '2', '8', E'{"role":"tool","content":[{"type":"text","text":"nul \\u0000 and half \\ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}', 'false', '2026-11-20 21:36:12.181313+00');
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'fork', '2', 'user', '{"role":"user","content":"héllo 2"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'fork', '3', 'user', '{"role":"user","content":"héllo 3"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'fork', '4', 'user', '{"role":"user","content":"héllo 4"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'talk', '2', 'user', '{"role":"user","content":"héllo 2"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'talk', '3', 'user', '{"role":"user","content":"héllo 3"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'talk', '4', 'user', '{"role":"user","content":"héllo 4"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'talk', '5', 'user', '{"role":"user","content":"héllo 5"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'talk', '6', 'user', '{"role":"user","content":"héllo 6"}', 'true', NULL, '2026-11-20 21:36:12.149587+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('', 'talk', '7', 'tool', E'{"role":"tool","content":[{"type":"text","text":"nul \\u0000 and half \\ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}', 'false', 'm-7', '2026-11-20 21:36:12.156387+00', 's-1', '3', 'true');
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'fork', '2', 'user', '{"role":"user","content":"héllo 2"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'fork', '3', 'user', '{"role":"user","content":"héllo 3"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'fork', '4', 'user', '{"role":"user","content":"héllo 4"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'talk', '2', 'user', '{"role":"user","content":"héllo 2"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'talk', '3', 'user', '{"role":"user","content":"héllo 3"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'talk', '4', 'user', '{"role":"user","content":"héllo 4"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'talk', '5', 'user', '{"role":"user","content":"héllo 5"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'talk', '6', 'user', '{"role":"user","content":"héllo 6"}', 'true', NULL, '2026-11-20 21:36:12.17735+00', NULL, NULL, NULL);
INSERT INTO sessionstore_messages (tenant_id, session_id, "position", role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed) VALUES ('acme', 'talk', '7', 'tool', E'{"role":"tool","content":[{"type":"text","text":"nul \\u0000 and half \\ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}', 'false', 'm-7', '2026-11-20 21:36:12.17794+00', 's-1', '3', 'true');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('', 'fork', 'lang', '"de"', 'true', '"de"');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('', 'fork', 'n', '1.0', 'true', '1.0');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('', 'fork', 't', E'["\\u0000"]', 'false', NULL);
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('', 'talk', 'lang', '"de"', 'true', '"de"');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('', 'talk', 'n', '1.0', 'true', '1.0');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('', 'talk', 't', E'["\\u0000"]', 'false', NULL);
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('acme', 'fork', 'lang', '"de"', 'true', '"de"');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('acme', 'fork', 'n', '1.0', 'true', '1.0');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('acme', 'fork', 't', E'["\\u0000"]', 'false', NULL);
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('acme', 'talk', 'lang', '"de"', 'true', '"de"');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('acme', 'talk', 'n', '1.0', 'true', '1.0');
INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) VALUES ('acme', 'talk', 't', E'["\\u0000"]', 'false', NULL);
