"""What the roles ask of the world. The promises stand in the docstrings; an adapter says only where it differs.

Queue, event log, store and blobs have a contract suite each in `forebay.testing`, which every adapter passes.
"""
