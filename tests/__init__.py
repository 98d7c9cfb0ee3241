"""The tests of sessionstore; each folder answers one question (see CONTRIBUTING.md)."""
