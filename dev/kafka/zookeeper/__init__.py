"""Kafka 3.9 with ZooKeeper 3.8: the oldest broker we support, and what many installations still run. It knows the
classic group protocol only, neither KIP-848 nor share groups."""
