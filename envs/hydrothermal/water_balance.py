"""Volumes that follow exactly from releases: what a solver's answer, true to a tolerance, becomes before it is used."""

from __future__ import annotations

import numpy as np

from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance


class WaterBalance:
    """The water balance of a stage as a function of releases.

    A programme holds its balances and bounds to a tolerance only. Volumes clipped into their bounds afterwards may then
    need a little more water than there is, and the stage with these volumes as data has no dispatch.

    >>> from orl.envs.hydrothermal.library import load
    >>> balance = WaterBalance(load("tri3"))
    >>> water, turbined, spilled = np.array([60.0, 18.0, 40.0]), np.array([20.0, 20.0, 0.0]), np.zeros(3)
    >>> balance.settle(water, turbined, spilled).round(3).tolist()
    [7.44, 18.0, 40.0]
    """

    def __init__(self, instance: HydrothermalInstance) -> None:
        self.factor = instance.water_factor
        self.least, self.most = instance.least_outflow, instance.most_outflow
        self.low, self.high = instance.min_volume, instance.max_volume
        self.order: list[int] = instance.upstream_first.tolist()
        self.turbine_to = [np.flatnonzero(row).tolist() for row in instance.turbine_to]
        self.spill_to = [np.flatnonzero(row).tolist() for row in instance.spill_to]
        own = np.eye(instance.n_plants)
        self._turbined = self.factor * (instance.turbine_to.T - own)
        self._spilled = instance.spill_to.T - own

    def settle(self, water: Floats, turbined: Floats, spilled: Floats) -> Floats:
        """Volumes at the end of a stage, within their bounds.

        What does not fit is spilled, what lacks is not released, from the top plant down. Inputs that meet all bounds
        are left as they are.

        Args:
            water: float64[n], hm3: volumes at the start and inflow.
            turbined: float64[n], m3/s, and
            spilled: float64[n], hm3, of a dispatch that is feasible to a tolerance.

        Returns:
            float64[n], hm3.
        """
        turbined, spilled = np.clip(turbined, self.least, self.most), np.maximum(spilled, 0.0)
        volumes: Floats = water + self._turbined @ turbined + self._spilled @ spilled
        if ((volumes >= self.low) & (volumes <= self.high)).all():
            return volumes
        at_hand = water.copy()
        for i in self.order:
            release, spill = self.factor * float(turbined[i]), float(spilled[i])
            volume = at_hand[i] - release - spill
            if volume > self.high[i]:
                spill += volume - self.high[i]
                volume = self.high[i]
            elif volume < self.low[i]:
                kept = min(spill, self.low[i] - volume)
                held = min(release - self.factor * self.least[i], self.low[i] - volume - kept)
                spill, release, volume = spill - kept, release - held, volume + kept + held
            for downstream in self.turbine_to[i]:
                at_hand[downstream] += release
            for downstream in self.spill_to[i]:
                at_hand[downstream] += spill
            volumes[i] = volume
        return volumes
