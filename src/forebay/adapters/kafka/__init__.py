"""Apache Kafka as queue and event log."""
