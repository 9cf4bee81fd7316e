"""Solvers of lot-sizing: exact dynamic programming, rules and mixed-integer programs."""
