"""Hydrothermal dispatch: reservoirs in cascade, thermal plants and a network, inflows at random."""
