"""Exact methods for the slippery lake."""
