"""Solver baselines of orl: one folder a domain, one module a method."""
