"""Durable AI pipelines over NATS JetStream."""
