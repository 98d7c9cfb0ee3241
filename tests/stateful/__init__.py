"""All verbs in any order, against a plain model in memory."""
