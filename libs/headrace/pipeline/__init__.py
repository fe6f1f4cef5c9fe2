"""What people write: loader, schema, expressions, plan. Pure: runs no user code, opens no connection."""
