"""Every number of the store, each with the reason it has that value.

Limits that a caller may change are fields of `StoreSettings`; their defaults live here.
"""

from __future__ import annotations

# --- what a caller may put in -------------------------------------------------------------------

ID_CHARS = 255
"""Longest id, name, key or user id in characters: what people expect of a VARCHAR(255)."""

ID_BYTES = 512
"""Longest id in UTF-8 bytes. Four of them in one index entry stay under PostgreSQL's 2,704 bytes."""

BODY_BYTES = 16 * 1024 * 1024
"""Default limit of one encoded body: above the largest recorded message (2.8 MB of base64) with room to spare."""

CALL_BYTES = 64 * 1024 * 1024
"""Default limit of all bodies of one append: a statement is held in memory on both sides of the wire."""

BATCH = 10_000
"""Default limit of messages in one append."""

DEPTH = 200
"""Default limit of nesting. orjson stops at 254 and Python's recursion not far above."""

DEPTH_CEILING = 250
"""The deepest `max_depth` that settings may name: what both JSON decoders can read back."""

INTEGER_DIGITS = 1_000
"""Longest integer. Python refuses to parse more than 4,300 digits, PostgreSQL's numeric far more."""

METADATA_BYTES = 64 * 1024
"""Longest encoded metadata value: metadata is for filtering and labels, bodies hold content."""

METADATA_KEYS = 1_000
"""Most metadata keys one call may set or remove: they travel as one statement."""

METADATA_FILTERS = 8
"""Most metadata conditions of one listing: each is one more index probe a row."""

VALUE_KEY_CHARS = 128
"""How much of an encoded scalar is indexed: enough to be selective, short enough for any index page."""

INT64_MAX = 2**63 - 1
"""Largest position, keep or limit: a BIGINT column of PostgreSQL, an INTEGER of SQLite."""

# --- what the store does per call ---------------------------------------------------------------

OPERATION_TIMEOUT_SECONDS = 15.0
"""Default deadline of a call: under the 30 s at which most proxies give up, over any sane lock wait."""

PAGE_DEFAULT = 50
PAGE_MAX = 1_000
"""Largest page of a listing. A larger limit is capped here, so that one request stays bounded."""

ITER_BATCH = 500
"""Messages that `iter_messages` fetches at once: about 250 KB at the usual size of a message."""

CHUNK_ROWS = 5_000
CHUNK_BYTES = 8 * 1024 * 1024
"""One INSERT of a longer history carries at most this much; also the size of one commit group on SQLite."""

TURN_SCAN = 1_000
"""How many messages a cut may move back to find the start of its turn, before it stays exact."""

ACTIVITY_BUCKET_MICROS = 15 * 60 * 1_000_000
"""Width of an activity bucket. One minute kept 30 % of updates HOT on chat-paced traffic, ten minutes 91 %."""

SESSION_CAP_MAX = 100_000
"""Largest `session_cap`: the cost of an eviction grows with the cap."""

EVICT_ROUNDS = 20
"""How often an eviction looks again where a victim was used between the decision and the DELETE."""

ANCESTORS_MAX = 10_000
"""Longest chain of forks that `lineage` follows."""

PRUNE_BATCH = 500
PRUNE_BATCH_MESSAGES = 50_000
"""A prune's transaction deletes at most so many sessions and messages (or one session, however long)."""

BACKFILL_BATCH = 1_000
"""Rows of a backfill's transaction: it holds locks on those it changes for some tens of milliseconds."""

BACKFILL_BATCH_MAX = 10_000
BACKFILL_PAUSE_SECONDS = 3_600.0
"""Whoever asks for more rows, or for as long a rest between two batches, has mistaken the unit."""

PRUNE_CLOSE_SECONDS = 5.0
"""How long `aclose` waits for a prune in the background."""

COOLDOWN_MAX_SECONDS = 100 * 365 * 86_400.0
"""A longer cooldown of a shared job means for ever, and would not fit in a database's times."""

# --- events and watching ------------------------------------------------------------------------

EVENTS_PAGE = 1_000
"""Events that one call reads, at most and by default: they are small, and a session has few."""

TOMBSTONE_MICROS = 24 * 3_600 * 1_000_000
"""How long it is known that a session was deleted: long enough for a worker that was down over night."""

PURGE_SLICE_MICROS = 10 * 1_000_000
"""A deletion takes along the oldest tombstone past its time, and those of so much time after it: at least as many as it
leaves, so that they never pile up, and not all that a large prune has left at once."""

WATCH_ROWS = 200
"""Messages and events that a watcher reads at once: they are held in memory until its consumer has taken them."""

WATCH_MIN_SECONDS = 0.05
WATCH_MAX_SECONDS = 1.0
"""Pause between two looks at what other processes did: the first while there is something, the second after a while."""

WATCH_EAGER_SECONDS = 30.0
"""How long after a change the looks stay frequent: people answer each other within that time."""

WATCH_SLOWING = 1.25
"""By how much each further pause is longer, up to the longest."""

WATCH_SHARE = 4
"""How many times longer than a look the pause after it is, at least: whatever is watched, the database stays free."""

WATCH_LATE_MICROS = 30 * 1_000_000
"""How far back a look at a tenant goes: twice the default deadline, for clocks that differ and calls that took long."""

SWEEP_SECONDS = 300.0
"""How often a watcher of a tenant compares every session, for what a long transaction committed late."""

SWEEP_ROWS = 5_000
"""Sessions that it reads at once: some milliseconds of a database."""

WATCH_READS = 4
"""Reads of watched sessions under way at once, so that they leave connections to those who work."""

WATCHERS = 10_000
"""Default limit of watchers of one process: what one look a second is still cheap for."""

LAG_CHANGES = 256
LAG_BYTES = 1024 * 1024
"""How many changes, or bytes of messages, wait for a consumer before it is told that it lags: ten thousand of them must
fit into memory, and what they miss they can read again."""

RESUME_ROUNDS = 5
RESUME_FEW = 50
"""How often the sessions of a tenant are compared before a resumed watcher hears of changes as they happen, at most;
so few that have changed meanwhile it can read while they already wait for it."""

EVENT_LOG_FILES = 1_000
"""Sessions whose place in the event log is remembered; of others it is found in their file."""

EVENT_LOG_TAIL_BYTES = 64 * 1024 * 1024
"""How much of the end of a file is looked at for its last whole line: above the longest."""

# --- executors ----------------------------------------------------------------------------------

GROUP_UNITS = 64
"""Most units that share one commit on SQLite: 32 concurrent writers gained five times, more gains little."""

COALESCED_ROWS = 500
"""Most messages that waiting appends to one session leave with as one statement."""

SQLITE_READERS = 2
"""Connections for reading beside the one writer: readers never wait for it under WAL."""

SQLITE_BUSY_SLICE_SECONDS = 0.25
"""How long SQLite itself waits for a lock before the executor looks at deadlines and tries again: as long as its own
pauses are still short, so that among many processes nobody waits long for nothing."""

POSTGRES_CONNECTIONS = 10
"""Most connections that `connect()` holds, and so most statements under way at once."""

POSTGRES_CONNECT_SECONDS = 5.0
POSTGRES_LOCK_SECONDS = 3.0
POSTGRES_IDLE_IN_TRANSACTION_SECONDS = 5.0
"""Under the default deadline, so that a vanished client's row lock is gone before ours passes."""

RETRY_FIRST_SECONDS = 0.01
RETRY_MAX_SECONDS = 0.5
"""Back-off between tries: doubled from the first to the largest, each with full jitter."""

# --- migrations of PostgreSQL -------------------------------------------------------------------

MIGRATION_GRACE_SECONDS = 1.0
"""What a wait for others gets beyond its time, so that a server that is there can still say what was in the way."""

MIGRATION_PULSE_SECONDS = 5.0
"""How often the server is asked whether it is there while revisions run: little for it, soon for whoever waits."""

MIGRATION_ANSWER_SECONDS = 30.0
"""How long an answer may take: a server that builds an index of a full table may be slow, and is not gone for that."""

MIGRATION_CUT_SECONDS = 0.1
"""How long work whose connections were closed may take to notice by itself: what is left then is connecting."""

# --- telemetry ----------------------------------------------------------------------------------

TENANT_HASH_BYTES = 6
"""Of a tenant's hash: among a million tenants two of the same are unlikely, and 12 digits can be read aloud."""

TENANT_HASHES = 1024
"""How many of them are remembered: hashing costs as much as the rest of telling."""

# --- status -------------------------------------------------------------------------------------

STATUS_TENANTS = 10
"""How many of the busiest tenants a status names, by sessions and by messages."""

STATUS_LOCK_SECONDS = 1.0
STATUS_STATEMENT_SECONDS = 5.0
"""How long a part of a status waits on PostgreSQL: all of them together stay near the default deadline, and whoever
looks while a table is locked learns what else there is to know."""

STATUS_DBSTAT_BYTES = 256 * 1024 * 1024
"""Up to this size of a SQLite file its tables are measured one by one, which visits every page: about a second."""
