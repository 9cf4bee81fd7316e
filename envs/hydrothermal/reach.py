"""Which volumes a cascade can reach in one stage, from the top plant down.

The end volume of plant i lies between its least volume and the smaller of its largest volume and the water at hand:
start volume, inflow and what arrives from upstream, less its least outflow. What arrives depends on the volumes chosen
upstream, so plants are treated in an order in which water only flows onward. Any fractions y in [0, 1] between the
limits give volumes for which the stage's programme is feasible: :meth:`ReachableMap.releases` is a point of it. That
counts on surplus power being allowed (``surplus`` of the instance).

Of the release of plant u, plant i gets at most

- all, where turbined and spilled water both go to i;
- what the turbines take, where only turbined water goes to i;
- all but the least outflow, where only spilled water goes to i and turbined water leaves the system;
- what the turbines leave over, where turbined water goes to another plant: then turbining comes first, and there are
  volumes within the limits that could be reached but are not offered. In all other cases the limits are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.reach_kernel import (
    ALL,
    LEFT_OVER,
    SPILLED,
    TURBINED,
    Cascade,
    operate,
    reachable,
    reachable_gradient,
)


@dataclass(frozen=True, eq=False)
class Reached:
    """End volumes of a stage and the limits that they were chosen from.

    Attributes:
        lower, upper, volumes: float64[B, n], hm3.
        release: float64[B, n], hm3: what does not stay in the reservoir.
    """

    lower: Floats
    upper: Floats
    volumes: Floats
    release: Floats


@dataclass(frozen=True, eq=False)
class Operated:
    """A stage run with given turbined water.

    Attributes:
        volumes: float64[B, n], hm3, at the end.
        turbined: float64[B, n], m3/s.
        spilled: float64[B, n], hm3.
    """

    volumes: Floats
    turbined: Floats
    spilled: Floats


class ReachableMap:
    """The reachable volumes of an instance's plants.

    Args:
        instance: Any instance.

    Raises:
        InputError: ``upstream_first`` is not an order in which water only flows onward.

    >>> from orl.envs.hydrothermal.library import load
    >>> reach = ReachableMap(load("tri3"))
    >>> start, inflow = np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])
    >>> reach(start, inflow, np.ones((1, 3))).volumes.round(2).tolist()
    [[178.84, 20.0, 76.79]]
    >>> reach(start, inflow, np.zeros((1, 3))).release.round(2).tolist()
    [[178.84, 215.12, 76.79]]
    """

    def __init__(self, instance: HydrothermalInstance) -> None:
        require_acyclic(instance)
        self.instance = instance
        self.order: tuple[int, ...] = tuple(instance.upstream_first.tolist())
        self.links = links(instance)
        """For each plant the plants u directly upstream, and what of u's release can reach it."""
        self._least = instance.water_factor * instance.least_outflow
        self._most = instance.water_factor * instance.most_outflow
        pairs = [pair for found in self.links for pair in found]
        self._cascade = Cascade(
            factor=instance.water_factor,
            order=np.array(instance.upstream_first),
            start=np.cumsum([0, *map(len, self.links)]),
            source=np.array([u for u, _ in pairs], np.int64),
            kind=np.array([kind for _, kind in pairs], np.int64),
            least=np.array(self._least),
            most=np.array(self._most),
            low=np.array(instance.min_volume),
            high=np.array(instance.max_volume),
        )

    def __call__(self, volumes: Floats, inflows: Floats, fractions: Floats) -> Reached:
        """End volumes at ``fractions`` y of the way from the lower to the upper limit.

        Args:
            volumes: float64[B, n], hm3, at the start of the stage.
            inflows: float64[B, n], m3/s.
            fractions: float64[B, n] in [0, 1].
        """
        return self._reached(volumes, inflows, fractions, as_targets=False)

    def project(self, volumes: Floats, inflows: Floats, targets: Floats) -> Reached:
        """The targets float64[B, n], hm3, each moved into its limits, from the top plant down."""
        return self._reached(volumes, inflows, targets, as_targets=True)

    def gradient(
        self, volumes: Floats, inflows: Floats, choices: Floats, weights: Floats, *, as_targets: bool = False
    ) -> tuple[Floats, Floats]:
        """Derivatives of ``(weights * end volumes).sum()``; at kinks those on one of the sides.

        Args:
            volumes, inflows: As in a call.
            choices: float64[B, n]: fractions, or ``as_targets`` the targets of :meth:`project`.
            weights: float64[B, n].

        Returns:
            By ``volumes`` and by ``choices``, float64[B, n] each.

        >>> from orl.envs.hydrothermal.library import load
        >>> reach = ReachableMap(load("tri3"))
        >>> start, inflow = np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])
        >>> _, by_fractions = reach.gradient(start, inflow, np.full((1, 3), 0.5), np.ones((1, 3)))
        >>> by_fractions.round(2).tolist()
        [[178.84, 20.0, 76.79]]
        """
        at, chosen = self._reached(volumes, inflows, choices, as_targets), _fresh(choices)
        by_volumes, by_choices, by_release = (np.empty(chosen.shape) for _ in range(3))
        reachable_gradient(
            self._cascade,
            chosen,
            as_targets,
            at.lower,
            at.upper,
            at.volumes,
            at.release,
            _fresh(weights),
            by_volumes,
            by_choices,
            by_release,
        )
        return by_volumes, by_choices

    def operate(self, volumes: Floats, inflows: Floats, turbined: Floats) -> Operated:
        """What comes of turbined water that is asked for: less where water is short; spilled is what does not fit.

        Args:
            volumes: float64[B, n], hm3, at the start of the stage.
            inflows: float64[B, n], m3/s.
            turbined: float64[B, n], m3/s; moved between the least and the most outflow of each plant. Least outflows
                go before least volumes, these before what is asked for.

        >>> from orl.envs.hydrothermal.library import load
        >>> reach = ReachableMap(load("tri3"))
        >>> done = reach.operate(np.array([[100.0, 10.0, 40.0]]), np.zeros((1, 3)), np.full((1, 3), 30.0))
        >>> done.turbined.round(2).tolist(), done.volumes.round(2).tolist()
        ([[30.0, 30.0, 15.22]], [[21.16, 10.0, 0.0]])
        """
        low, high = self.instance.least_outflow, self.instance.most_outflow
        asked: Floats = np.clip(turbined, low, high)
        water = self.instance.water_factor * asked
        after, released, spilled = (np.empty(water.shape) for _ in range(3))
        operate(self._cascade, _fresh(volumes), _fresh(inflows), water, after, released, spilled)
        done = np.where(released == water, asked, np.clip(released / self.instance.water_factor, low, high))
        return Operated(after, done, spilled)

    def _reached(self, volumes: Floats, inflows: Floats, choices: Floats, as_targets: bool) -> Reached:
        lower, upper, chosen, release = (np.empty(np.shape(volumes)) for _ in range(4))
        arguments = _fresh(volumes), _fresh(inflows), _fresh(choices)
        reachable(self._cascade, *arguments, as_targets, lower, upper, chosen, release)
        return Reached(lower, upper, chosen, release)

    def releases(self, release: Floats) -> tuple[Floats, Floats]:
        """Turbined float64[B, n], m3/s, and spilled float64[B, n], hm3, that :class:`Reached` counts on.

        Turbining comes first, except where only spilled water goes on: there the turbines run at their least.
        """
        instance = self.instance
        spill_goes_on = instance.spill_to.any(1) & ~instance.turbine_to.any(1)
        turbined = np.where(spill_goes_on, self._least, np.clip(release, self._least, self._most))
        return turbined / instance.water_factor, release - turbined


def _fresh(array: Floats) -> Floats:
    """A writeable, contiguous copy: the kernels are compiled for nothing else."""
    return np.array(array, np.float64, order="C")


def links(instance: HydrothermalInstance) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each plant the pairs (u, kind): plant u directly upstream and what of its release arrives."""
    turbine, spill = instance.turbine_to, instance.spill_to
    found: list[tuple[tuple[int, int], ...]] = []
    for i in range(instance.n_plants):
        pairs = []
        for u in np.flatnonzero(turbine[:, i] | spill[:, i]).tolist():
            if turbine[u, i] and spill[u, i]:
                pairs.append((u, ALL))
            elif turbine[u, i]:
                pairs.append((u, TURBINED))
            else:
                pairs.append((u, LEFT_OVER if turbine[u].any() else SPILLED))
        found.append(tuple(pairs))
    return tuple(found)


def require_acyclic(instance: HydrothermalInstance) -> None:
    """Refuse an instance whose ``upstream_first`` is not an order in which water only flows onward.

    Raises:
        InputError: it is not.
    """
    order: Integers = instance.upstream_first
    n = instance.n_plants
    if sorted(order.tolist()) != list(range(n)):
        expected = f"each of the {n} plants once"
        raise InputError("not an order", source=instance.name, field="upstream_first", value=order, expected=expected)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    for u, i in np.argwhere(instance.turbine_to | instance.spill_to).tolist():
        if place[u] >= place[i]:
            names = f"{instance.plant_names[u]} -> {instance.plant_names[i]}"
            expected = "plants after all those whose water reaches them"
            raise InputError(
                "water flows back", source=instance.name, field="upstream_first", value=names, expected=expected
            )
