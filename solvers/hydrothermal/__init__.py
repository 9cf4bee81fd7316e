"""Solvers and policies for hydrothermal dispatch."""
