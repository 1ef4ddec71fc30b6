"""For those who extend Forebay: contract suites that every adapter passes, and a real service to start and kill."""
