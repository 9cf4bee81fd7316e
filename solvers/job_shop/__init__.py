"""Solvers of shop scheduling: dispatching rules, tabu search, CP-SAT and a mixed-integer program."""
