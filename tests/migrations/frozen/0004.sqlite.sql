BEGIN TRANSACTION;
CREATE TABLE sessionstore_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT sessionstore_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "sessionstore_alembic_version" VALUES('0004');
CREATE TABLE sessionstore_backfills (
	job TEXT NOT NULL, 
	after_key TEXT, 
	total BIGINT, 
	seen BIGINT NOT NULL, 
	changed BIGINT NOT NULL, 
	unreadable BIGINT NOT NULL, 
	started_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	finished_at BIGINT, 
	CONSTRAINT pk_sessionstore_backfills PRIMARY KEY (job)
);
INSERT INTO "sessionstore_backfills" VALUES('message-columns',NULL,22,18,0,0,1795210571900000,1795210571913000,1795210571913000);
CREATE TABLE sessionstore_documents (
	tenant_id TEXT NOT NULL, 
	category TEXT NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	body TEXT NOT NULL, 
	plain BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_sessionstore_documents PRIMARY KEY (tenant_id, category, name, format), 
	CONSTRAINT ck_sessionstore_documents_format CHECK (format IN ('json', 'markdown'))
);
INSERT INTO "sessionstore_documents" VALUES('','notes/de','plan','markdown','"# Plan\n"',1,1795210571925984,1795210571925984);
INSERT INTO "sessionstore_documents" VALUES('','notes/de','plan','json','{"z":1,"a":"\ud800"}',0,1795210571928371,1795210571928371);
CREATE TABLE sessionstore_events (
	tenant_id TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	generation BIGINT NOT NULL, 
	first_position BIGINT NOT NULL, 
	next_position BIGINT NOT NULL, 
	payload TEXT, 
	plain BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_sessionstore_events PRIMARY KEY (tenant_id, session_id, number), 
	CONSTRAINT fk_sessionstore_events_sessionstore_sessions FOREIGN KEY(tenant_id, session_id) REFERENCES sessionstore_sessions (tenant_id, id) ON DELETE CASCADE, 
	CONSTRAINT ck_sessionstore_events_number CHECK (number >= 0)
);
INSERT INTO "sessionstore_events" VALUES('','talk',0,'created',1795210571858791,0,0,NULL,1,1795210571858791);
INSERT INTO "sessionstore_events" VALUES('','talk',1,'trimmed',1795210571858791,2,8,NULL,1,1795210571870880);
INSERT INTO "sessionstore_events" VALUES('','fork',0,'forked',1795210571874856,2,5,'{"parent_id":"talk","fork_position":5}',1,1795210571874856);
INSERT INTO "sessionstore_events" VALUES('','talk',2,'noted',1795210571858791,2,8,'{"role":"tool","content":[{"type":"text","text":"nul \u0000 and half \ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}',0,1795210571880198);
INSERT INTO "sessionstore_events" VALUES('','empty',0,'created',1795210571885803,0,0,NULL,1,1795210571885803);
INSERT INTO "sessionstore_events" VALUES('acme','talk',0,'created',1795210571890923,0,0,NULL,1,1795210571890923);
INSERT INTO "sessionstore_events" VALUES('acme','talk',1,'trimmed',1795210571890923,2,8,NULL,1,1795210571893738);
INSERT INTO "sessionstore_events" VALUES('acme','fork',0,'forked',1795210571894513,2,5,'{"parent_id":"talk","fork_position":5}',1,1795210571894513);
INSERT INTO "sessionstore_events" VALUES('acme','talk',2,'noted',1795210571890923,2,8,'{"role":"tool","content":[{"type":"text","text":"nul \u0000 and half \ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}',0,1795210571896880);
INSERT INTO "sessionstore_events" VALUES('acme','empty',0,'created',1795210571897343,0,0,NULL,1,1795210571897343);
CREATE TABLE sessionstore_maintenance (
	tenant_id TEXT NOT NULL, 
	job TEXT NOT NULL, 
	last_run_at BIGINT NOT NULL, 
	CONSTRAINT pk_sessionstore_maintenance PRIMARY KEY (tenant_id, job)
);
INSERT INTO "sessionstore_maintenance" VALUES('','prune',1795210571890000);
INSERT INTO "sessionstore_maintenance" VALUES('acme','prune',1795210571898000);
CREATE TABLE sessionstore_messages (
	tenant_id TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	role TEXT NOT NULL, 
	body TEXT NOT NULL, 
	plain BOOLEAN NOT NULL, 
	message_id TEXT, 
	created_at BIGINT NOT NULL, 
	seed_id TEXT, 
	phase_reached TEXT, 
	evaluation_passed BOOLEAN, 
	CONSTRAINT pk_sessionstore_messages PRIMARY KEY (tenant_id, session_id, position), 
	CONSTRAINT fk_sessionstore_messages_sessionstore_sessions FOREIGN KEY(tenant_id, session_id) REFERENCES sessionstore_sessions (tenant_id, id) ON DELETE CASCADE, 
	CONSTRAINT ck_sessionstore_messages_position CHECK (position >= 0)
);
INSERT INTO "sessionstore_messages" VALUES('','talk',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',5,'user','{"role":"user","content":"héllo 5"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',6,'user','{"role":"user","content":"héllo 6"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',7,'tool','{"role":"tool","content":[{"type":"text","text":"nul \u0000 and half \ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}',0,'m-7',1795210571868745,'s-1','3',1);
INSERT INTO "sessionstore_messages" VALUES('','fork',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','fork',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','fork',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795210571864080,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',5,'user','{"role":"user","content":"héllo 5"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',6,'user','{"role":"user","content":"héllo 6"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',7,'tool','{"role":"tool","content":[{"type":"text","text":"nul \u0000 and half \ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}',0,'m-7',1795210571892448,'s-1','3',1);
INSERT INTO "sessionstore_messages" VALUES('acme','fork',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','fork',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795210571891841,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','fork',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795210571891841,NULL,NULL,NULL);
CREATE TABLE sessionstore_metadata (
	tenant_id TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	plain BOOLEAN NOT NULL, 
	value_key TEXT, 
	CONSTRAINT pk_sessionstore_metadata PRIMARY KEY (tenant_id, session_id, "key"), 
	CONSTRAINT fk_sessionstore_metadata_sessionstore_sessions FOREIGN KEY(tenant_id, session_id) REFERENCES sessionstore_sessions (tenant_id, id) ON DELETE CASCADE
);
INSERT INTO "sessionstore_metadata" VALUES('','talk','lang','"de"',1,'"de"');
INSERT INTO "sessionstore_metadata" VALUES('','talk','n','1.0',1,'1.0');
INSERT INTO "sessionstore_metadata" VALUES('','talk','t','["\u0000"]',0,NULL);
INSERT INTO "sessionstore_metadata" VALUES('','fork','lang','"de"',1,'"de"');
INSERT INTO "sessionstore_metadata" VALUES('','fork','n','1.0',1,'1.0');
INSERT INTO "sessionstore_metadata" VALUES('','fork','t','["\u0000"]',0,NULL);
INSERT INTO "sessionstore_metadata" VALUES('acme','talk','lang','"de"',1,'"de"');
INSERT INTO "sessionstore_metadata" VALUES('acme','talk','n','1.0',1,'1.0');
INSERT INTO "sessionstore_metadata" VALUES('acme','talk','t','["\u0000"]',0,NULL);
INSERT INTO "sessionstore_metadata" VALUES('acme','fork','lang','"de"',1,'"de"');
INSERT INTO "sessionstore_metadata" VALUES('acme','fork','n','1.0',1,'1.0');
INSERT INTO "sessionstore_metadata" VALUES('acme','fork','t','["\u0000"]',0,NULL);
CREATE TABLE sessionstore_schema (
	id SMALLINT NOT NULL, 
	revision TEXT NOT NULL, 
	compatible_from TEXT NOT NULL, 
	CONSTRAINT pk_sessionstore_schema PRIMARY KEY (id), 
	CONSTRAINT ck_sessionstore_schema_one_row CHECK (id = 1)
);
INSERT INTO "sessionstore_schema" VALUES(1,'0004','0001');
CREATE TABLE sessionstore_sessions (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	model TEXT NOT NULL, 
	max_turns BIGINT NOT NULL, 
	system_message TEXT, 
	title TEXT, 
	summary TEXT, 
	active_seed_id TEXT, 
	active_persona_id TEXT, 
	parent_id TEXT, 
	fork_position BIGINT, 
	first_position BIGINT NOT NULL, 
	next_position BIGINT NOT NULL, 
	generation BIGINT NOT NULL, 
	version BIGINT NOT NULL, 
	next_event BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	last_accessed_at BIGINT NOT NULL, 
	activity_bucket BIGINT NOT NULL, 
	CONSTRAINT pk_sessionstore_sessions PRIMARY KEY (tenant_id, id), 
	CONSTRAINT ck_sessionstore_sessions_positions CHECK (first_position >= 0 AND next_position >= first_position), 
	CONSTRAINT ck_sessionstore_sessions_counters CHECK (version >= 0 AND max_turns >= 0 AND next_event >= 0)
);
INSERT INTO "sessionstore_sessions" VALUES('','talk','ann','',0,NULL,'A título',NULL,NULL,NULL,NULL,NULL,2,8,1795210571858791,4,3,1795210571858791,1795210571880198,1795210571880198,1994678);
INSERT INTO "sessionstore_sessions" VALUES('','fork','ann','',0,NULL,'A título',NULL,NULL,NULL,'talk',5,2,5,1795210571874856,0,1,1795210571874856,1795210571874856,1795210571874856,1994678);
INSERT INTO "sessionstore_sessions" VALUES('','empty','','',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,1795210571885803,0,1,1795210571885803,1795210571885803,1795210571885803,1994678);
INSERT INTO "sessionstore_sessions" VALUES('acme','talk','ann','',0,NULL,'A título',NULL,NULL,NULL,NULL,NULL,2,8,1795210571890923,4,3,1795210571890923,1795210571896880,1795210571896880,1994678);
INSERT INTO "sessionstore_sessions" VALUES('acme','fork','ann','',0,NULL,'A título',NULL,NULL,NULL,'talk',5,2,5,1795210571894513,0,1,1795210571894513,1795210571894513,1795210571894513,1994678);
INSERT INTO "sessionstore_sessions" VALUES('acme','empty','','',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,1795210571897343,0,1,1795210571897343,1795210571897343,1795210571897343,1994678);
CREATE TABLE sessionstore_tombstones (
	tenant_id TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	generation BIGINT NOT NULL, 
	number BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	deleted_at BIGINT NOT NULL, 
	CONSTRAINT pk_sessionstore_tombstones PRIMARY KEY (tenant_id, session_id, generation), 
	CONSTRAINT ck_sessionstore_tombstones_kind CHECK (kind IN ('deleted', 'evicted'))
);
INSERT INTO "sessionstore_tombstones" VALUES('','gone',1795210571886792,1,'deleted',1795210571887946);
INSERT INTO "sessionstore_tombstones" VALUES('acme','gone',1795210571897812,1,'deleted',1795210571898592);
CREATE INDEX ix_sessionstore_sessions_activity ON sessionstore_sessions (tenant_id, activity_bucket DESC);
CREATE INDEX ix_sessionstore_sessions_user_activity ON sessionstore_sessions (tenant_id, user_id, activity_bucket DESC);
CREATE INDEX ix_sessionstore_sessions_parent ON sessionstore_sessions (tenant_id, parent_id, id) WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX uq_sessionstore_messages_message_id ON sessionstore_messages (tenant_id, session_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX ix_sessionstore_metadata_value ON sessionstore_metadata (tenant_id, "key", value_key, session_id);
CREATE VIEW sessionstore_message_texts AS SELECT tenant_id, session_id, position, message_id, role, CASE WHEN plain AND json_valid(body) THEN json_extract(body, '$.content') END AS text, plain, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages;
CREATE VIEW sessionstore_session_facts AS SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, next_position - first_position AS length, generation, version, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, strftime('%Y-%m-%d %H:%M:%f', updated_at / 1000000.0, 'unixepoch') AS updated_at, strftime('%Y-%m-%d %H:%M:%f', last_accessed_at / 1000000.0, 'unixepoch') AS last_accessed_at FROM sessionstore_sessions;
CREATE VIEW sessionstore_message_facts AS SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, evaluation_passed, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages;
CREATE INDEX ix_sessionstore_tombstones_deleted_at ON sessionstore_tombstones (tenant_id, deleted_at);
COMMIT;
