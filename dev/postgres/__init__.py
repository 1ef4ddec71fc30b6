"""A real PostgreSQL for tests, for chaos and for `make postgres`: no Docker, only the server's own programs.

`programs` finds them and says whom to run them as, `server` runs one server in a folder of its own. Like dev/kafka it
lives here and not in `forebay.testing`: the product must not depend on a server's insides.
"""
