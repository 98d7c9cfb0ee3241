"""Is it right under races, over processes too."""
