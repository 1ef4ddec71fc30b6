"""What developers run and tests use beside the product: the set-up of .venv, generated pages, a real Kafka."""
