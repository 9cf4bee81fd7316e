"""The water of a cascade for numba: from the top plant down, and derivatives from the sea up.

The rules are those of :mod:`orl.envs.hydrothermal.reach`. Arrays are float64[B, n], contiguous; volumes, releases and
limits in hm3, inflows and turbined water in m3/s.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.hydrothermal.instance import Floats, Integers

drop_stale_kernels()

ALL, TURBINED, SPILLED, LEFT_OVER = range(4)
"""What of a plant's release can reach the next one."""


class Cascade(NamedTuple):
    """The plants of an instance, for the kernels.

    Attributes:
        factor: K, hm3 for each m3/s over a stage.
        order: int64[n], plants so that water only flows onward.
        start: int64[n + 1]: the links ``start[i] : start[i + 1]`` lead to plant i.
        source, kind: int64[links]: the plant upstream, and what of its release can reach plant i.
        least, most: float64[n], hm3, of turbined water in a stage.
        low, high: float64[n], hm3, of volumes.
    """

    factor: float
    order: Integers
    start: Integers
    source: Integers
    kind: Integers
    least: Floats
    most: Floats
    low: Floats
    high: Floats


@njit(cache=True)
def reachable(
    cascade: Cascade,
    volumes: Floats,
    inflows: Floats,
    choices: Floats,
    as_targets: bool,
    lower: Floats,
    upper: Floats,
    chosen: Floats,
    release: Floats,
) -> None:
    """Fill the last four: limits of the end volumes, end volumes, and what does not stay in the reservoirs.

    Args:
        volumes: Before the stage.
        choices: Fractions of the way from the lower to the upper limit; with ``as_targets`` volumes, each moved to the
            nearest limit where it lies outside.
    """
    c = cascade
    for b in range(len(volumes)):
        for i in c.order:
            at_hand = volumes[b, i] + c.factor * inflows[b, i]
            for k in range(c.start[i], c.start[i + 1]):
                u, kind = c.source[k], c.kind[k]
                if kind == ALL:
                    at_hand += release[b, u]
                elif kind == TURBINED:
                    at_hand += min(release[b, u], c.most[u])
                elif kind == SPILLED:
                    at_hand += release[b, u] - c.least[u]
                else:
                    at_hand += max(release[b, u] - c.most[u], 0.0)
            most = min(max(at_hand - c.least[i], 0.0), c.high[i])
            least = min(c.low[i], most)
            choice = choices[b, i] if as_targets else least + (most - least) * choices[b, i]
            if choice < least:
                choice = least
            elif choice > most:
                choice = most
            lower[b, i], upper[b, i], chosen[b, i], release[b, i] = least, most, choice, at_hand - choice


@njit(cache=True)
def reachable_gradient(
    cascade: Cascade,
    choices: Floats,
    as_targets: bool,
    lower: Floats,
    upper: Floats,
    chosen: Floats,
    release: Floats,
    by_chosen: Floats,
    by_volumes: Floats,
    by_choices: Floats,
    by_release: Floats,
) -> None:
    """Fill the derivatives of ``(weights * chosen).sum()`` by the volumes before and by the choices.

    Where limits meet, the derivative is one of those on either side.

    Args:
        choices, lower, upper, chosen, release: As :func:`reachable` took and left them.
        by_chosen: The weights; overwritten.
        by_release: Room for the derivatives by releases.
    """
    c = cascade
    by_release[:] = 0.0
    for b in range(len(chosen)):
        for place in range(len(c.order) - 1, -1, -1):
            i = c.order[place]
            by_at_hand = by_release[b, i]
            share = by_chosen[b, i] - by_release[b, i]
            least, most, choice = lower[b, i], upper[b, i], choices[b, i]
            if as_targets:
                by_least = share if choice < least else 0.0
                by_most = share if choice > most else 0.0
                by_choices[b, i] = share if least <= choice <= most else 0.0
            else:
                inside = min(max(choice, 0.0), 1.0)
                by_least, by_most = share * (1.0 - inside), share * inside
                by_choices[b, i] = share * (most - least) if inside == choice else 0.0
            if not c.low[i] < most:
                by_most += by_least
            if 0.0 < most < c.high[i]:
                by_at_hand += by_most
            by_volumes[b, i] = by_at_hand
            for k in range(c.start[i], c.start[i + 1]):
                u, kind = c.source[k], c.kind[k]
                arrives = kind in (ALL, SPILLED) or (kind == TURBINED) == (release[b, u] < c.most[u])
                if arrives:
                    by_release[b, u] += by_at_hand


@njit(cache=True)
def operate(
    cascade: Cascade,
    volumes: Floats,
    inflows: Floats,
    turbined: Floats,
    after: Floats,
    released: Floats,
    spilled: Floats,
) -> None:
    """Fill the last three (hm3) from turbined water asked for: what is short is not turbined, what is over is spilled.

    Args:
        volumes: Before the stage.
        turbined: hm3 in the stage, between the least and the most of each plant.
        after: End volumes.
        released: Water turbined, at most as asked for; the least outflow goes before the least volume.
        spilled: What does not fit into the reservoir.
    """
    c = cascade
    for b in range(len(volumes)):
        for i in c.order:
            at_hand = volumes[b, i] + c.factor * inflows[b, i]
            for k in range(c.start[i], c.start[i + 1]):
                u, kind = c.source[k], c.kind[k]
                if kind in (ALL, TURBINED):
                    at_hand += released[b, u]
                if kind != TURBINED:
                    at_hand += spilled[b, u]
            taken = turbined[b, i]
            volume = at_hand - taken
            if volume < c.low[i]:
                taken, volume = at_hand - c.low[i], c.low[i]
                if taken < c.least[i]:
                    taken, volume = c.least[i], max(at_hand - c.least[i], 0.0)
            over = max(volume - c.high[i], 0.0)
            after[b, i], released[b, i], spilled[b, i] = min(volume, c.high[i]), taken, over
