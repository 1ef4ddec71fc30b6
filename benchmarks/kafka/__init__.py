"""The goals of the service on Kafka and PostgreSQL (docs/benchmarks.md): every role, and each server it needs, is a
process of its own."""
