"""The behaviours and promises of the store, each in a line; `docs/behaviours.md` and the README are made from this."""

from __future__ import annotations

from typing import Final

GROUPS: Final = {
    "H": "Agent sessions",
    "F": "Saved sessions",
    "O": "State store",
    "X": "Everywhere",
}

BEHAVIOURS: Final = {
    "H01": "`open()` without an id makes an empty session with a UUIDv7",
    "H02": "opening an id twice gives one session; the second time only its recency moves",
    "H03": "with a cap of 3: open a, b, c, a again, then d; b is evicted",
    "H04": "opening an existing session at the cap evicts nobody",
    "H05": "a cap of 0 is refused, there is none by default, and settings tell it",
    "H06": "a lower cap takes effect with the next new session",
    "H07": "with equal times the victim is the same every time",
    "H08": "reading does not move the recency",
    "H09": "opening, changing and forking (source and child) move it",
    "H10": "`exists` is false for what is unknown, deleted or evicted",
    "H11": "`length`: an error for unknown ids, 0 when empty, otherwise how many are kept",
    "H12": "changing a snapshot changes nothing stored",
    "H13": "`delete` takes everything of a session along, and is False for unknown ids",
    "H14": "`reset` empties history, summary and metadata, and keeps the rest",
    "H15": "`delete_all` empties one tenant",
    "H16": "a fork copies history, columns, metadata and summary; afterwards both live apart",
    "H17": "forking an unknown session makes nothing",
    "H18": "a fork without an id gets a UUIDv7",
    "H19": "a fork onto an existing id is refused, or overwrites its history with `replace=True`",
    "H20": "a fork onto itself is refused and changes nothing",
    "H21": "at the cap a fork never evicts its source; at a cap of 1 the child survives, whole",
    "H22": "a fork's messages keep positions, ids and times",
    "H23": "`fork_at(2)` of 4 messages: 2 in the child, 4 in the source",
    "H24": "`fork_at`: 0 gives none, beyond the end all; negative and unknown are refused",
    "H25": "a child has one derived event a message",
    "H26": "`trim` returns what is kept: 2 of 4, 0, or all; negative and unknown are refused",
    "H27": "derived events match the messages after every kind of change",
    "H28": "`append` keeps every key of a body, and any role that is not empty",
    "H29": "`append` refuses what is no message, each fault in words of its own, and stores nothing",
    "H30": "`messages_json` gives the bodies in order, as the prefix of the next call of a model",
    "H31": "`save` replaces the whole session, unknown keys of bodies included",
    "H32": "`replace_messages` keeps title, metadata and columns",
    "H33": "`subscribe` makes a missing session, keeps order and duplicates; none of an unknown one",
    "H34": "derived events of string, list, object, null, tool and image content",
    "H35": "an event log of JSON lines: one file a session and process, numbered, times never going back",
    "H36": "no directory or a failing one never makes a call fail; names are safe; reopening neither doubles nor cuts",
    "H37": "`compact`: nothing to do where all is kept, else the summary and a suffix that begins with a user",
    "H38": "after a restart the stored messages are the prefix; after `reset` there are none",
    "F01": "a new session has empty columns, no messages and no metadata",
    "F02": "model, turn limit and system message survive a restart",
    "F03": "`append` keeps the order, and names an unknown id",
    "F04": "`messages` gives a copy, and refuses unknown ids",
    "F05": "a save with one bad message writes nothing",
    "F06": "a second save replaces the first; the session is listed once",
    "F07": "`find` of a missing id is None",
    "F08": "what is saved comes back equal, field by field, over all of Unicode",
    "F09": "metadata comes back equal; an empty key is refused",
    "F10": "tables that do not fit the code are refused, with the command to run",
    "F11": "a damaged body is an error with session and position, never skipped",
    "F12": "listings give every session once, in a stated order, page by page",
    "F13": "any text within the limits is an id; any JSON object is a body",
    "F14": "a failing database gives our errors, without passwords or bodies",
    "F15": "content in blocks comes back verbatim",
    "F16": "saving after every turn writes only what is new",
    "O01": "a new session was updated when it was created",
    "O02": "setting columns or metadata and appending move `updated_at`; None clears",
    "O03": "`exchange_count` is the smaller count of users and assistants; `is_empty` is about users",
    "O04": "session files: two lists become one by their times, and the export equals the file",
    "O05": "`save` keeps the transcript's `updated_at`",
    "O06": "what agent responses add is kept, in columns too",
    "O07": "ids with control characters or too long are refused; `../` is only text",
    "O08": "`find` of a missing id is None, `save` of one creates it",
    "O09": "`open`: existing as it is, missing created, none minted, another user's refused",
    "O10": "`delete` is True once, then False",
    "O11": "summaries are complete, and read no message",
    "O12": "listed by update time, newest first, ties by id",
    "O13": "a damaged row fails its own read and no listing",
    "O14": "prune by age: strictly older goes; None, 0, negative and huge ages",
    "O15": "prune by number keeps the newest; None and 0",
    "O16": "age before number; ties by id; the report is the total",
    "O17": "a prune looks at updates, spares what is used meanwhile, and counts what it deleted",
    "O18": "`append_and_prune` returns after the append; a failing prune is logged",
    "O19": "`PruneThrottle`: one per cooldown, 0 always, in any thread",
    "O20": "`claim`: one process of many per cooldown",
    "O21": "the default policy is 7 days and 100 sessions",
    "O22": "documents: round trip, overwriting, None if missing, two formats of one name",
    "O23": "`list_category`: by code point, both formats, no categories below",
    "O24": "names and categories that could lead astray as paths are refused",
    "O25": "deleting a document: JSON first, then markdown, then False",
    "O26": "a reader sees a document before or after a save, never half",
    "X01": "a tenant's handle sees that tenant's sessions and no others",
    "X02": "appends of several processes: unique positions, no gaps, contiguous batches",
    "X03": "compare-and-set loses no update, and tells both numbers",
    "X04": "opening one new id at once makes one row; a cap holds once all have returned",
    "X05": "a deleted session leaves no row; its id begins anew",
    "X06": "migrations go up, down and up again, with rows in every table",
    "X07": "odd text and numbers behave alike on both databases",
    "X08": "what is stored is there after a restart",
}

PROMISES: Final = {
    "P1": "An acknowledged append survives `kill -9` of the process and of the server, and a power cut.",
    "P2": "Positions are dense and unique, batches contiguous, reads windows of one history, forks of one moment.",
    "P3": "A retry with the same message ids never duplicates, as long as the message is kept.",
    "P4": "A cancelled or failed call happens whole or not at all, delays nobody, and ends within its deadline.",
    "P5": "A deleted session leaves no row but, for a day, that it went, of an erased user none; its id begins anew.",
    "P6": "Prune and eviction work in bounded transactions and spare what was used after the decision.",
    "P7": "A handle of one tenant cannot read, change, list, count or detect another's sessions.",
    "P8": "What is accepted comes back equal on both databases, and breaks no documented query.",
    "P9": "Any number of replicas may migrate at once and be killed; code refuses tables that do not fit.",
    "P10": "The cost of an append, a short read and a page does not grow with what is stored.",
    "P11": "No body, metadata value or password is in a log, an error, a traceback or a repr.",
    "P12": "A full disk, a read-only file or missing rights give one clear error and need no restart once mended.",
    "P13": "Sixteen processes on one SQLite file, opening it for the first time included: no error, no long wait.",
}

ALSO: Final = {
    "P5": ("X05",),
    "P7": ("X01",),
    "P8": ("F08", "X07"),
    "P9": ("F10", "X06"),
}
"""Behaviours whose tests prove a promise too."""

NAMELESS: Final = {
    "tests/migrations/test_failing_revisions.py::test_a_revision_that_fails_half_way_leaves_nothing": ("P9",),
    "tests/migrations/test_races.py::test_eight_processes_at_once": ("P9",),
    "tests/migrations/test_races.py::test_killed_and_run_again": ("P9",),
    "tests/migrations/test_up_and_down.py::test_up_down_and_up_again_with_rows": ("X06",),
    "tests/migrations/test_view.py::test_the_view_survives_every_body": ("P8",),
}
"""Tests that say what they prove with their names alone."""

MEASURED: Final = {
    "P1": "60 writers killed: 1,925 acknowledged, lost 0. The server killed 10 times under 8 writers: 532, lost 0. "
    "40 power cuts, 80 replays: 600, lost 0, damaged 0",
    "P2": "4 processes of 64 tasks on one session: 10,240 appends, gaps 0, doubled 0, torn batches 0. 400 forks under "
    "append and trim, torn 0",
    "P3": "200 commits whose request or reply was lost: errors 0, doubled 0. Without ids 100 of 100 lost replies were "
    "told as unknown",
    "P4": "7,100 faults at every statement, commit and connect of every verb: half done 0, falsely denied 0. 3,000 "
    "cancelled appends: the innocent writer waited 0.19 s at most. 148 calls on a dark network: 2.04 s at a deadline "
    "of 2 s",
    "P5": "6 erasures killed between batches and 9 cut off, finished by calling again: left over 0",
    "P6": "160 pruners killed beside eight writers: of 1,053 sessions in use deleted 0, left half 0",
    "P7": "every verb with a foreign id on every way, answered as a missing one, by type and text; every statement "
    "names the tenant, twenty-seven listed ones apart",
    "P8": "every row of the catalogue of bad input: one verdict on both; recorded conversations come back equal",
    "P9": "40 races of eight processes and 24 kills before a random statement on each database, from the oldest "
    "revision with rows: one head, nothing lost, nothing half; beside eight writers and a long report the change "
    "waited 4.0 s (its lock timeout) and the service 3.0 s (its own)",
    "P10": "from 10,000 to 1,000,000 sessions (10,100,000 messages): append 1.02 times, last 20 1.11, page of a user "
    "1.10; SQLite to 1,010,000 messages: 1.06, 1.09, 1.29. Plans, round trips and hops are counted by tests",
    "P11": "canaries in bodies, metadata, titles and passwords, through every verb and driver's error: found 0",
    "P12": "167 refusals on full disks of three kinds, lost 0, half 0, working again without a restart",
    "P13": "16 processes, 16,000 appends on fresh files: errors 0; longest append 0.5 s, 7 s on a machine with five "
    "times more work than processors",
}
"""What a run of the long tests counted."""

OUTSIDE: Final = {
    "P1": 'a disk that says it has written what it has not; `durability="normal"`; `synchronous_commit=off` and '
    "`fsync=off` of a server, which are told at opening",
    "P2": "rows changed by hand: `sessionstore verify` finds what that broke",
    "P3": "ids of messages that were trimmed, truncated or deleted",
    "P4": "a caller's own transaction, which ends when the caller says; SQLite's own wait for the disk",
    "P5": "backups, archives of the log, and on PostgreSQL what VACUUM leaves: docs/operations.md says it all",
    "P6": "sessions that are only read: reading is not using",
    "P7": "code with the database's password, and the role of a DBA",
    "P8": "numbers beyond 64 bits in SQL functions of SQLite",
    "P9": "tables that another Alembic history migrates, without its own lock",
    "P10": "the cap's eviction, conditions on metadata, a page of a whole tenant in one quarter of an hour",
    "P11": "PostgreSQL's own log at another `log_error_verbosity` than terse; your own engine's `echo`; paths in the "
    "error of a refused body, which name its keys",
    "P12": "writes acknowledged by others while the disk is full",
    "P13": "network file systems",
}
"""What a promise does not cover, or no test proves yet."""
