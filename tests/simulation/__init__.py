"""The deterministic simulator: real schedulers and executors, a seeded loop, a broker that misbehaves, virtual time."""
