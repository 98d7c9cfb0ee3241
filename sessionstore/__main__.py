"""`python -m sessionstore` is the command line."""

from __future__ import annotations

from sessionstore.cli import main

if __name__ == "__main__":
    main()
