BEGIN TRANSACTION;
CREATE TABLE sessionstore_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT sessionstore_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "sessionstore_alembic_version" VALUES('0003');
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
INSERT INTO "sessionstore_backfills" VALUES('message-columns',NULL,22,18,0,0,1795197792535000,1795197792540000,1795197792540000);
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
INSERT INTO "sessionstore_documents" VALUES('','notes/de','plan','markdown','"# Plan\n"',1,1795197792555026,1795197792555026);
INSERT INTO "sessionstore_documents" VALUES('','notes/de','plan','json','{"z":1,"a":"\ud800"}',0,1795197792557332,1795197792557332);
CREATE TABLE sessionstore_maintenance (
	tenant_id TEXT NOT NULL, 
	job TEXT NOT NULL, 
	last_run_at BIGINT NOT NULL, 
	CONSTRAINT pk_sessionstore_maintenance PRIMARY KEY (tenant_id, job)
);
INSERT INTO "sessionstore_maintenance" VALUES('','prune',1795197792532000);
INSERT INTO "sessionstore_maintenance" VALUES('acme','prune',1795197792534000);
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
INSERT INTO "sessionstore_messages" VALUES('','talk',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',5,'user','{"role":"user","content":"héllo 5"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',6,'user','{"role":"user","content":"héllo 6"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','talk',7,'tool','{"role":"tool","content":[{"type":"text","text":"nul \u0000 and half \ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}',0,'m-7',1795197792525421,'s-1','3',1);
INSERT INTO "sessionstore_messages" VALUES('','fork',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','fork',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('','fork',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795197792522069,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',5,'user','{"role":"user","content":"héllo 5"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',6,'user','{"role":"user","content":"héllo 6"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','talk',7,'tool','{"role":"tool","content":[{"type":"text","text":"nul \u0000 and half \ud800"}],"z":1.0,"a":-0.0,"big":1180591620717411303424,"seed_id":"s-1","phase_reached":"3","evaluation_passed":true}',0,'m-7',1795197792533581,'s-1','3',1);
INSERT INTO "sessionstore_messages" VALUES('acme','fork',2,'user','{"role":"user","content":"héllo 2"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','fork',3,'user','{"role":"user","content":"héllo 3"}',1,NULL,1795197792533053,NULL,NULL,NULL);
INSERT INTO "sessionstore_messages" VALUES('acme','fork',4,'user','{"role":"user","content":"héllo 4"}',1,NULL,1795197792533053,NULL,NULL,NULL);
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
INSERT INTO "sessionstore_schema" VALUES(1,'0003','0001');
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
INSERT INTO "sessionstore_sessions" VALUES('','talk','ann','',0,NULL,'A título',NULL,NULL,NULL,NULL,NULL,2,8,1795197792518790,3,0,1795197792518790,1795197792526826,1795197792528211,1994664);
INSERT INTO "sessionstore_sessions" VALUES('','fork','ann','',0,NULL,'A título',NULL,NULL,NULL,'talk',5,2,5,1795197792528620,0,0,1795197792528620,1795197792528620,1795197792528620,1994664);
INSERT INTO "sessionstore_sessions" VALUES('','empty','','',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,1795197792530934,0,0,1795197792530934,1795197792530934,1795197792530934,1994664);
INSERT INTO "sessionstore_sessions" VALUES('acme','talk','ann','',0,NULL,'A título',NULL,NULL,NULL,NULL,NULL,2,8,1795197792532545,3,0,1795197792532545,1795197792533963,1795197792534310,1994664);
INSERT INTO "sessionstore_sessions" VALUES('acme','fork','ann','',0,NULL,'A título',NULL,NULL,NULL,'talk',5,2,5,1795197792534352,0,0,1795197792534352,1795197792534352,1795197792534352,1994664);
INSERT INTO "sessionstore_sessions" VALUES('acme','empty','','',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,1795197792534983,0,0,1795197792534983,1795197792534983,1795197792534983,1994664);
CREATE INDEX ix_sessionstore_sessions_activity ON sessionstore_sessions (tenant_id, activity_bucket DESC);
CREATE INDEX ix_sessionstore_sessions_user_activity ON sessionstore_sessions (tenant_id, user_id, activity_bucket DESC);
CREATE INDEX ix_sessionstore_sessions_parent ON sessionstore_sessions (tenant_id, parent_id, id) WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX uq_sessionstore_messages_message_id ON sessionstore_messages (tenant_id, session_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX ix_sessionstore_metadata_value ON sessionstore_metadata (tenant_id, "key", value_key, session_id);
CREATE VIEW sessionstore_message_texts AS SELECT tenant_id, session_id, position, message_id, role, CASE WHEN plain AND json_valid(body) THEN json_extract(body, '$.content') END AS text, plain, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages;
CREATE VIEW sessionstore_session_facts AS SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, fork_position, first_position, next_position, next_position - first_position AS length, generation, version, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, strftime('%Y-%m-%d %H:%M:%f', updated_at / 1000000.0, 'unixepoch') AS updated_at, strftime('%Y-%m-%d %H:%M:%f', last_accessed_at / 1000000.0, 'unixepoch') AS last_accessed_at FROM sessionstore_sessions;
CREATE VIEW sessionstore_message_facts AS SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, evaluation_passed, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages;
COMMIT;
