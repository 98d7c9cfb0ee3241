"""One unit of work a verb: generators that yield statements and receive rows. They do no I/O and hold no state."""
