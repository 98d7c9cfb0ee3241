"""Sessions from files and to files: JSON Lines, and the session files of the state store."""

from __future__ import annotations

from sessionstore.importers.exporting import Export, ExportReport, FilesTarget, LinesTarget
from sessionstore.importers.importing import Fault, Import, ImportReport, StoppedError
from sessionstore.importers.sessions import Reading
from sessionstore.importers.sources import JsonLines, SessionFiles, Source

__all__ = [
    "Export",
    "ExportReport",
    "Fault",
    "FilesTarget",
    "Import",
    "ImportReport",
    "JsonLines",
    "LinesTarget",
    "Reading",
    "SessionFiles",
    "Source",
    "StoppedError",
]
