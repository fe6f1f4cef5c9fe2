"""The deterministic simulator: real schedulers and executors on a seeded loop, a broker that misbehaves, virtual time."""
