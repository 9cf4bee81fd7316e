"""Following targets over many stages at once, in one linear programme that knows all inflows ahead.

The programme joins the storage forms (:mod:`orl.envs.hydrothermal.stage_model`) of W stages: volumes after a stage
stand in the water rows of the next one. Targets wish for volumes, and every hm3 missed costs a penalty p:

    minimise  sum_t cost_t + p sum_t,i (over_t,i + under_t,i)   with   volume_t,i + under_t,i - over_t,i = target_t,i

The dual of the last kind of row is the derivative of the optimum by the target. Where p is above the greatest value
that an hm3 can have (:func:`water_value_limit`), targets that can be met are met, since a cheaper way would need water
to be worth more than p. This is the second stage of A. Rosemberg, A. Street, D. Valladao, P. Van Hentenryck,
"Efficiently training deep-learning parametric policies using Lagrangian duality" (arXiv 2405.14973).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import scipy.sparse as sparse

from orl.envs.hydrothermal.bounds import energy_worth
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.stage_lp import new_highs, pass_model, run_again
from orl.envs.hydrothermal.stage_model import COST_SCALE, StageModel, stage_model

MET = 1e-6  # hm3 by which a target that counts as met may be missed; HiGHS holds rows to 1e-7


@dataclass(frozen=True, eq=False)
class Followed:
    """Targets followed over W stages.

    Attributes:
        cost: USD for each hour of a stage, summed over the stages, without penalties.
        penalty: What missed targets cost, in the same unit.
        volumes: float64[W, n], hm3, after the stages.
        by_targets: float64[W, n], USD per hm3: derivatives of cost and penalty together by the targets.
        by_start: float64[n], USD per hm3: the same by the volumes before the first stage.
    """

    cost: float
    penalty: float
    volumes: Floats
    by_targets: Floats
    by_start: Floats


class HorizonLP:
    """The programme of W consecutive stages, kept in HiGHS: other inflows, targets and starts begin warm.

    Where several duals are optimal, those returned may depend on the solves before. A copy, or a pickled programme in
    another process, starts cold.

    Args:
        instance: The problem.
        n_stages: W.

    Attributes:
        retries: Solves that were optimal only at a second try.

    >>> from orl.envs.hydrothermal.library import load
    >>> tri3 = load("tri3")
    >>> path, targets = tri3.path_inflows(np.ones(4, int)), np.full((4, 3), 10.0)
    >>> followed = HorizonLP(tri3, 4).solve(0, tri3.initial_volume, path, targets, penalty=1e5)
    >>> bool(np.allclose(followed.volumes, targets)), followed.penalty
    (True, 0.0)
    """

    def __init__(self, instance: HydrothermalInstance, n_stages: int) -> None:
        self.instance, self.n_stages = instance, n_stages
        self.retries = 0
        self._block = stage_model(instance, 0, "storage")
        n, (rows, columns) = instance.n_plants, self._block.matrix.shape
        self._height, self._width = rows + n, columns + 2 * n
        self._missed: Integers = np.arange(columns, columns + 2 * n)
        places = self._block.rows["balance"]
        demands = [stage_model(instance, row, "storage").row_lower[places] for row in range(len(instance.demand))]
        self._demands = np.array(demands)
        self._highs: Any = None
        self._first, self._penalty = 0, 0.0

    def solve(self, first: int, start: Floats, inflows: Floats, targets: Floats, penalty: float) -> Followed:
        """The least cost of following targets.

        Args:
            first: The first of the stages, from 0.
            start: float64[n], hm3, before it.
            inflows: float64[W, n], m3/s.
            targets: float64[W, n], hm3, after the stages; anything.
            penalty: USD for each hm3 missed.

        Raises:
            StageError: There is no optimum.
        """
        highs, n = self.highs, self.instance.n_plants
        self._set_demand(first)
        self._set_penalty(penalty)
        water = self.instance.water_factor * inflows
        water[0] += start
        for stage in range(self.n_stages):
            row = stage * self._height
            for i, value in enumerate(water[stage].tolist()):
                highs.changeRowBounds(row + i, value, value)
            row += self._height - n
            for i, value in enumerate(targets[stage].tolist()):
                highs.changeRowBounds(row + i, value, value)
        highs.run()
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            self.retries += run_again(highs, f"{self.n_stages} stages of {self.instance.name} from stage {first} on")
        solution, volume = highs.getSolution(), self._block.columns["volume"]
        values = np.array(solution.col_value).reshape(self.n_stages, self._width)
        duals = np.array(solution.row_dual).reshape(self.n_stages, self._height) / COST_SCALE
        missed = float(values[:, self._missed].sum()) * penalty
        return Followed(
            cost=float(highs.getObjectiveValue()) / COST_SCALE - missed,
            penalty=missed,
            volumes=np.clip(values[:, volume], self.instance.min_volume, self.instance.max_volume),
            by_targets=duals[:, -n:],
            by_start=duals[0, :n],
        )

    @property
    def highs(self) -> Any:
        """The HiGHS object, built when it is first needed; it belongs to one process and one thread."""
        if self._highs is None:
            self._highs = new_highs()
            self._first, self._penalty = 0, 0.0
            pass_model(self._highs, self._model())
        return self._highs

    def _set_demand(self, first: int) -> None:
        if first == self._first:
            return
        for stage in range(self.n_stages):
            demand = self._demands[(first + stage) % len(self._demands)]
            row = stage * self._height + self._block.rows["balance"].start
            for b, value in enumerate(demand.tolist()):
                self._highs.changeRowBounds(row + b, value, value)
        self._first = first

    def _set_penalty(self, penalty: float) -> None:
        if penalty == self._penalty:
            return
        columns = (np.arange(self.n_stages)[:, None] * self._width + self._missed).ravel()
        self._highs.changeColsCost(len(columns), columns.astype(np.int32), np.full(len(columns), penalty * COST_SCALE))
        self._penalty = penalty

    def _model(self) -> StageModel:
        """Of each stage the variables of its storage form, under [n], over [n]; its rows, then those of the targets."""
        block, n, count = self._block, self.instance.n_plants, self.n_stages
        volume, plant = block.columns["volume"], np.arange(n)
        picked = sparse.csr_array((np.ones(n), (plant, volume.start + plant)), shape=(n, block.matrix.shape[1]))
        one = sparse.eye_array(n)
        stage = sparse.block_array([[block.matrix, None, None], [picked, one, -one]], format="csr")
        following = np.arange(1, count)[:, None]
        rows, columns = following * self._height + plant, (following - 1) * self._width + volume.start + plant
        shape = (count * self._height, count * self._width)
        links = sparse.csr_array((np.full(rows.size, -1.0), (rows.ravel(), columns.ravel())), shape=shape)
        matrix = sparse.csr_array(sparse.kron(sparse.eye_array(count), stage, format="csr") + links)

        def all_stages(of_block: Floats, of_targets: float, width: int) -> Floats:
            return np.tile(np.concatenate([of_block, np.full(width, of_targets)]), count)

        lower, upper = all_stages(block.row_lower, 0.0, n), all_stages(block.row_upper, 0.0, n)
        at = block.rows["balance"]
        for s in range(count):
            demand = self._demands[s % len(self._demands)]
            lower[s * self._height + at.start : s * self._height + at.stop] = demand
            upper[s * self._height + at.start : s * self._height + at.stop] = demand
        return StageModel(
            costs=all_stages(block.costs, 0.0, 2 * n),
            lower=all_stages(block.lower, 0.0, 2 * n),
            upper=all_stages(block.upper, np.inf, 2 * n),
            matrix=matrix,
            row_lower=lower,
            row_upper=upper,
            columns={},
            rows={},
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_highs": None}


class TargetFollowing:
    """Paths of targets followed in programmes of at most W stages, one after the other.

    Each programme starts from the volumes that the one before ended with. Its derivative by these volumes is passed on
    to the last targets of the one before: in full where such a target was met, not at all where it was missed. For
    missed ones that is an approximation (the end volume may depend on other targets, too); with one programme for all
    stages the derivatives are exact.

    Args:
        instance: The problem.

    >>> from orl.envs.hydrothermal.library import load
    >>> tri3 = load("tri3")
    >>> path, targets = tri3.path_inflows(np.ones(4, int)), np.full((4, 3), 10.0)
    >>> following = TargetFollowing(tri3)
    >>> costs = [following(path, targets, 1e5, window)[0] for window in (1, 3, 4)]
    >>> bool(np.allclose(costs, costs[0]))
    True
    """

    def __init__(self, instance: HydrothermalInstance) -> None:
        self.instance = instance
        self._programmes: dict[int, HorizonLP] = {}

    @property
    def retries(self) -> int:
        """Solves that were optimal only at a second try."""
        return sum(programme.retries for programme in self._programmes.values())

    def __call__(
        self, inflows: Floats, targets: Floats, penalty: float, window: int | None = None
    ) -> tuple[float, float, Floats]:
        """Cost without penalties, penalties (USD for each hour of a stage) and derivatives by the targets (USD/hm3).

        Args:
            inflows: float64[T, n], m3/s.
            targets: float64[T, n], hm3.
            penalty: USD for each hm3 missed.
            window: W; None: all stages in one programme.
        """
        n_stages = len(inflows)
        window = n_stages if window is None else window
        gradient = np.empty(targets.shape)
        cost, paid, volume = 0.0, 0.0, self.instance.initial_volume
        for first in range(0, n_stages, window):
            stages = slice(first, min(first + window, n_stages))
            followed = self._programme(stages.stop - first).solve(
                first, volume, inflows[stages], targets[stages], penalty
            )
            cost, paid = cost + followed.cost, paid + followed.penalty
            gradient[stages] = followed.by_targets
            if first:
                met = np.abs(volume - targets[first - 1]) <= MET
                gradient[first - 1] += np.where(met, followed.by_start, 0.0)
            volume = followed.volumes[-1]
        return cost, paid, gradient

    def _programme(self, n_stages: int) -> HorizonLP:
        if n_stages not in self._programmes:
            self._programmes[n_stages] = HorizonLP(self.instance, n_stages)
        return self._programmes[n_stages]


def water_value_limit(instance: HydrothermalInstance) -> float:
    """No hm3 of water anywhere is worth more (or costs more to get rid of), USD per hm3 for each hour of a stage.

    An hm3 is 1/K m3/s over a stage, hence at a plant with rho MW for each m3/s it gives rho / K MW, and so on
    downstream; no MW is worth more than the deficit that it replaces. It can be spilled at the spill costs of its way.

    >>> from orl.envs.hydrothermal.library import load
    >>> round(water_value_limit(load("tri3")), 1)  # (1 + 0.6) / 2.628 * 500
    304.4
    """
    energy = float(energy_worth(instance).max(initial=0.0))
    spill = np.zeros(instance.n_plants)
    for u in instance.upstream_first[::-1].tolist():
        spill[u] = instance.spill_costs[u] + spill[instance.spill_to[u]].sum()
    return max(energy * instance.deficit_cost / instance.base_mva, float(spill.max(initial=0.0)))
