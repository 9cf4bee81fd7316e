"""The cuts of one stage: all that are known, those in the programme, and which are worth being there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, Integers
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.stage_model import COST_SCALE

DIGITS = 9  # decimals in which equal cuts agree, in thousands of dollars
NOTICEABLE = 1e-6 / COST_SCALE  # USD by which a future cost must lie below an idle cut; HiGHS allows a tenth of it


class CutPool:
    """Cuts ``future >= intercept + slope @ volume`` of one stage, each for one of A kinds of future cost.

    A cut is *active* while it is a row of the stage programme. Idle cuts are not forgotten: :meth:`wake` puts those
    back that a solution violates, so leaving cuts out never changes an optimum.

    Args:
        lp: The programme of the stage, in its future form.
        n_kinds: A.
    """

    def __init__(self, lp: StageLP, n_kinds: int = 1) -> None:
        self.lp, self.n_kinds = lp, n_kinds
        self._intercepts, self._slopes = np.empty(16), np.empty((16, lp.n))
        self._kinds = np.empty(16, np.int64)
        self.count = 0
        self.active: list[int] = []  # cuts in the programme, in the order of its rows
        self._idle = np.zeros(0, np.int64)
        self._known: set[bytes] = set()
        self.points: list[Floats] = []  # volumes at which cuts were made

    @property
    def intercepts(self) -> Floats:
        """float64[C], USD."""
        return self._intercepts[: self.count]

    @property
    def slopes(self) -> Floats:
        """float64[C, n], USD per hm3."""
        return self._slopes[: self.count]

    @property
    def kinds(self) -> Integers:
        """int64[C]."""
        return self._kinds[: self.count]

    def add(self, intercept: float, slope: Floats, kind: int = 0) -> bool:
        """A new cut, at once active; False if it is known already."""
        numbers = np.round(np.concatenate([[intercept], slope]) * COST_SCALE, DIGITS) + 0.0
        key = numbers.tobytes() + bytes([kind % 256, kind // 256])
        if key in self._known:
            return False
        self._known.add(key)
        if self.count == len(self._intercepts):
            self._intercepts = np.resize(self._intercepts, 2 * self.count)
            self._kinds = np.resize(self._kinds, 2 * self.count)
            self._slopes = np.resize(self._slopes, (2 * self.count, self.lp.n))
        c = self.count
        self._intercepts[c], self._slopes[c], self._kinds[c] = intercept, slope, kind
        self.count += 1
        self._activate(np.array([c]))
        return True

    def values(self, volumes: npt.ArrayLike) -> Floats:
        """The highest cut of each kind float64[..., A], USD, at volumes float64[..., n]; -inf where there is none."""
        volumes = np.asarray(volumes, np.float64)
        heights = volumes @ self.slopes.T + self.intercepts
        best = np.full((*volumes.shape[:-1], self.n_kinds), -np.inf)
        for kind in range(self.n_kinds):
            mine = self.kinds == kind
            if mine.any():
                best[..., kind] = heights[..., mine].max(-1)
        return best

    def highest(self, volume: Floats) -> Integers:
        """The highest cut of each kind at volumes float64[n]: int64[A], -1 where there is none."""
        heights = self.slopes @ volume + self.intercepts
        best = np.full(self.n_kinds, -1)
        for kind in range(self.n_kinds):
            mine = np.flatnonzero(self.kinds == kind)
            if len(mine):
                best[kind] = mine[heights[mine].argmax()]
        return best

    def wake(self, volume: Floats, future: Floats) -> bool:
        """Activate the idle cut that lies highest above future costs float64[A] at volumes float64[n], if one does."""
        if not len(self._idle):
            return False
        above = self._slopes[self._idle] @ volume + self._intercepts[self._idle] - future[self._kinds[self._idle]]
        worst = int(above.argmax())
        if above[worst] <= NOTICEABLE:
            return False
        self._activate(self._idle[[worst]])
        self._idle = np.delete(self._idle, worst)
        return True

    def select(self) -> None:
        """Level-1 selection: activate what is highest at some trial point, all else becomes idle.

        V. de Matos, A. Philpott, E. Finardi, Journal of Computational and Applied Mathematics 290 (2015) 196-208.
        """
        if not self.points or not self.count:
            return
        points = np.array(self.points)
        kept = []
        for kind in range(self.n_kinds):
            mine = np.flatnonzero(self.kinds == kind)
            if not len(mine):
                continue
            for block in np.array_split(points, 1 + len(points) * len(mine) // 10**6):
                heights = block @ self.slopes[mine].T + self.intercepts[mine]
                kept.append(mine[np.unique(heights.argmax(1))])
        wanted = np.unique(np.concatenate(kept))
        self._deactivate(np.flatnonzero(~np.isin(self.active, wanted)).tolist())
        self._activate(np.setdiff1d(wanted, self.active))
        self._idle = np.setdiff1d(np.arange(self.count), self.active)

    def sleep(self, count: int) -> None:
        """Make all but the first ``count`` active cuts idle: what :meth:`wake` and :meth:`add` put there since."""
        if len(self.active) > count:
            self._deactivate(list(range(count, len(self.active))))

    def _activate(self, cuts: Integers) -> None:
        if len(cuts):
            self.lp.add_cuts(self._intercepts[cuts], self._slopes[cuts], self._kinds[cuts])
            self.active.extend(cuts.tolist())

    def _deactivate(self, positions: list[int]) -> None:
        self.lp.remove_cuts(positions)
        gone = set(positions)
        self.active = [cut for k, cut in enumerate(self.active) if k not in gone]
        self._idle = np.setdiff1d(np.arange(self.count), self.active)

    # ---- JSON --------------------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """All cuts, which of them are active, and the trial points."""
        return {
            "intercepts": self.intercepts.tolist(),
            "slopes": self.slopes.tolist(),
            "kinds": self.kinds.tolist(),
            "active": sorted(self.active),
            "points": [point.tolist() for point in self.points],
        }

    def read_json(self, data: Any, source: str, field: str) -> None:
        """Fill an empty pool with what :meth:`to_json` wrote.

        Raises:
            InputError: Missing or odd numbers.
        """
        try:
            intercepts = np.array(data["intercepts"], np.float64)
            slopes = np.array(data["slopes"], np.float64).reshape(-1, self.lp.n)
            points = np.array(data["points"], np.float64).reshape(-1, self.lp.n)
            kinds, active = np.array(data["kinds"], np.int64), np.array(data["active"], np.int64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError("bad cuts", source=source, field=field, value=str(error)) from error
        same = intercepts.ndim == kinds.ndim == active.ndim == 1 and len(intercepts) == len(slopes) == len(kinds)
        finite = same and bool(
            np.isfinite(intercepts).all() and np.isfinite(slopes).all() and np.isfinite(points).all()
        )
        if not finite or ((kinds < 0) | (kinds >= self.n_kinds)).any() or ((active < 0) | (active >= len(kinds))).any():
            expected = f"C finite intercepts, C slopes of {self.lp.n} and C kinds 0..{self.n_kinds - 1}"
            raise InputError("bad cuts", source=source, field=field, expected=expected)
        for intercept, slope, kind in zip(intercepts.tolist(), slopes, kinds.tolist(), strict=True):
            if not self.add(intercept, slope, kind):
                raise InputError("the same cut twice", source=source, field=field, value=intercept)
        self.points = list(points)
        wanted = set(active.tolist())
        self._deactivate([k for k, cut in enumerate(self.active) if cut not in wanted])
