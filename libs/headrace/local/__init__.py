"""Embedded mode: a nats-server child and the five services in one process."""
