"""How it is carried: log, queues, clock, ids, leases, blobs, supervision. May do I/O, knows no service."""
