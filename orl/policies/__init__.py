"""Networks shared by algorithms; they know observation and action spaces, never a domain."""
