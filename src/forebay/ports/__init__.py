"""What the roles ask of the world. The promises stand in the docstrings; an adapter says only where it differs.

Each port has a contract suite in `forebay.testing` that every adapter passes.
"""
