"""The rules of Forebay: no I/O, no task, no clock, no environment. Time and randomness are arguments."""
