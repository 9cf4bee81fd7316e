"""A slippery lake in two halves: a move with a known outcome, then a slip."""
