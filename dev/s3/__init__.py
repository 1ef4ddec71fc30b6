"""A real server of the S3 protocol for tests: S3Proxy, which keeps objects as files. No Docker, only Java and Maven.

It is brought, started and stopped as Kafka is (dev/kafka).
"""
