"""Names of environments, domains, solvers, rules and algorithms, as tables of lazy import strings.

Nothing heavy is imported here: an entry holds ``"module:attribute"`` and is resolved when it is asked for. To add a
room, add rows to the tables; the conformance tests then run over them, and the ``orl`` command lists them.

>>> [entry.key for entry in solvers("job_shop")][:3]
['cp-sat', 'tabu-search', 'milp']
>>> algorithm("ppo").__name__
'PPO'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gymnasium

from orl.common.errors import UnknownNameError
from orl.registry_rows import Domain as Domain
from orl.registry_rows import Entry as Entry
from orl.registry_rows import Environment as Environment
from orl.registry_rows import resolve as resolve

Row = TypeVar("Row")


# ---- tables --------------------------------------------------------------------------------------------------------
def _shop(name: str, instance: str, summary: str) -> Environment:
    return Environment(
        id=f"orl/{name}-v0",
        domain="job_shop",
        entry_point="orl.envs.job_shop.env:JobShopEnv",
        vector_entry_point="orl.envs.job_shop.vector:JobShopVectorEnv",
        summary=summary,
        kwargs={"instance": instance},
    )


_ENVIRONMENTS = (
    _shop("JobShop", "ft06", "dispatch the operations of a job shop in time order"),
    _shop("FlowShop", "tai20_5_01", "every job visits the machines in the same order"),
    _shop("OpenShop", "tai4_4_01", "the operations of a job may run in any order"),
    _shop("FlexibleJobShop", "flex6x6_01", "an operation may run on one of several machines"),
    Environment(
        id="orl/LotSizing-v0",
        domain="lot_sizing",
        entry_point="orl.envs.lot_sizing.env:LotSizingEnv",
        vector_entry_point="orl.envs.lot_sizing.vector:LotSizingVectorEnv",
        summary="decide what each machine makes before random demand comes",
        kwargs={"instance": "ls-4x2"},
    ),
    Environment(
        id="orl/PostDecisionFrozenLake-v0",
        domain="frozen_lake",
        entry_point="orl.envs.frozen_lake.env:PostDecisionFrozenLakeEnv",
        vector_entry_point="orl.envs.frozen_lake.vector:PostDecisionFrozenLakeVectorEnv",
        summary="walk over a slippery lake: a certain move, then perhaps a slip",
        kwargs={"instance": "lake-10x10-1"},
    ),
    Environment(
        id="orl/Hydrothermal-v0",
        domain="hydrothermal",
        entry_point="orl.envs.hydrothermal.env:HydrothermalEnv",
        vector_entry_point="orl.envs.hydrothermal.vector:HydrothermalVectorEnv",
        summary="decide how much water to keep before thermal plants meet the rest of the demand",
        kwargs={"instance": "tri3"},
    ),
)

_DOMAINS = (
    Domain(
        name="job_shop",
        summary="job, flow, open and flexible shops and general scheduling models",
        load_instance="orl.envs.job_shop.library:load",
        list_instances="orl.envs.job_shop.library:available",
        save_picture="orl.envs.job_shop.viewer:save_picture",
        read_solution="orl.envs.job_shop.instance:Schedule.from_json",
        environments=tuple(e.id for e in _ENVIRONMENTS if e.domain == "job_shop"),
        example="ft06",
        data_files="orl.envs.job_shop.library:DATA_FILES",
    ),
    Domain(
        name="lot_sizing",
        summary="stochastic discrete lot-sizing on parallel machines",
        load_instance="orl.envs.lot_sizing.library:load",
        list_instances="orl.envs.lot_sizing.library:available",
        save_picture="orl.envs.lot_sizing.viewer:save_picture",
        read_solution="orl.envs.lot_sizing.instance:LotSizingPlan.from_json",
        environments=tuple(e.id for e in _ENVIRONMENTS if e.domain == "lot_sizing"),
        example="ls-2x1-t6/scenario-0",
        data_files="orl.envs.lot_sizing.library:DATA_FILES",
    ),
    Domain(
        name="frozen_lake",
        summary="slippery lakes in post-decision form, solved exactly",
        load_instance="orl.envs.frozen_lake.library:load",
        list_instances="orl.envs.frozen_lake.library:names",
        save_picture="orl.envs.frozen_lake.viewer:save_picture",
        read_solution="orl.envs.frozen_lake.instance:solution_from_json",
        environments=tuple(e.id for e in _ENVIRONMENTS if e.domain == "frozen_lake"),
        example="lake-4x4",
    ),
    Domain(
        name="hydrothermal",
        summary="long-term hydrothermal dispatch on a transmission network",
        load_instance="orl.envs.hydrothermal.library:load",
        list_instances="orl.envs.hydrothermal.library:available",
        save_picture="orl.envs.hydrothermal.viewer:save_picture",
        read_solution="orl.envs.hydrothermal.plan:read_solution",
        environments=tuple(e.id for e in _ENVIRONMENTS if e.domain == "hydrothermal"),
        example="tri3/scenario-0",
        data_files="orl.envs.hydrothermal.library:DATA_FILES",
    ),
)

_JOB_SHOP_RULES = {
    "spt": "shortest processing time",
    "lpt": "longest processing time",
    "mwkr": "most work remaining in the job",
    "lwkr": "least work remaining in the job",
    "mopnr": "most operations remaining in the job",
    "sps": "fewest operations remaining in the job",
    "lrpt": "longest remaining work after the operation",
    "srpt": "shortest remaining work after the operation",
    "fifo": "first in, first out",
    "fdd-mwkr": "flow due date over most work remaining",
    "random": "uniform among the legal operations",
}

_LAKE_GOALS = {
    "dynamic-programming": ("return", "largest expected return"),
    "max-success": ("success", "largest probability of the goal"),
}

_LOT_SIZING_RULES = {
    "idle": "no machine ever runs",
    "random": "anything that the machine can make, with equal chances",
    "static": "one item a machine for ever, by assignment",
    "greedy": "the item with the greatest saving over the next periods",
    "base-stock": "(s, S) for every item",
    "tuned-greedy": "greedy, look-ahead tuned by simulation",
    "tuned-base-stock": "(s, S), tuned by simulation",
    "dynamic-programming": "optimal policy, small instances",
    "price-directed": "values of single items at prices of the machines",
    "rolling-horizon": "mixed-integer programme over the next periods",
    "sample-average": "two-stage stochastic programme over samples",
    "scenario-tree": "multistage stochastic programme over a tree",
}
_LOT_SIZING_PROGRAMMES = ("rolling-horizon", "sample-average", "scenario-tree")
"""Rules with a time limit for each decision."""

_HYDROTHERMAL_RULES = {
    "empty": "lets go of all water at once",
    "full": "keeps all water that there is room for",
    "random": "any volumes within reach, with equal chances",
    "myopic": "least cost of the stage, ties broken by storing",
    "rolling-horizon": "linear programme over the next stages",
    "sddp": "cuts of stochastic dual dynamic programming",
}

_SOLVERS = (
    Entry("cp-sat", "orl.solvers.job_shop.cp_sat:CpSat", "exact: OR-Tools CP-SAT", "job_shop"),
    Entry("tabu-search", "orl.solvers.job_shop.tabu_search:TabuSearch", "anytime: tabu on the graph", "job_shop"),
    Entry("milp", "orl.solvers.job_shop.milp:Milp", "exact, small sizes: mixed-integer programme", "job_shop"),
    *(
        Entry(
            key,
            "orl.solvers.job_shop.dispatching:DispatchingRule",
            f"rule: {summary}",
            "job_shop",
            kwargs={"rule": key},
            reproducible=True,
        )
        for key, summary in _JOB_SHOP_RULES.items()
    ),
    Entry(
        "perfect-information",
        "orl.solvers.lot_sizing.perfect_information:PerfectInformation",
        "exact: mixed-integer programme that knows the demand path",
        "lot_sizing",
        reproducible=True,
    ),
    *(
        Entry(
            key,
            "orl.solvers.lot_sizing.policies:RuleSolver",
            f"rule: {summary}",
            "lot_sizing",
            kwargs={"rule": key},
            reproducible=key not in _LOT_SIZING_PROGRAMMES,
        )
        for key, summary in _LOT_SIZING_RULES.items()
    ),
    *(
        Entry(
            key,
            "orl.solvers.frozen_lake.dynamic_programming:DynamicProgramming",
            f"exact: {summary}",
            "frozen_lake",
            kwargs={"maximise": goal},
            reproducible=True,
        )
        for key, (goal, summary) in _LAKE_GOALS.items()
    ),
    Entry(
        "deterministic-equivalent",
        "orl.solvers.hydrothermal.deterministic_equivalent:DeterministicEquivalent",
        "exact: linear programme that knows the inflows",
        "hydrothermal",
        reproducible=True,
    ),
    *(
        Entry(
            key,
            "orl.solvers.hydrothermal.policies:RuleSolver",
            f"rule: {summary}",
            "hydrothermal",
            kwargs={"rule": key},
            reproducible=True,
        )
        for key, summary in _HYDROTHERMAL_RULES.items()
    ),
)

_RULES = (
    *(
        Entry(key, "orl.solvers.job_shop.dispatching:RulePolicy", summary, "job_shop", kwargs={"rule": key})
        for key, summary in _JOB_SHOP_RULES.items()
    ),
    *(
        Entry(key, "orl.solvers.lot_sizing.policies:RulePolicy", summary, "lot_sizing", kwargs={"rule": key})
        for key, summary in _LOT_SIZING_RULES.items()
    ),
    *(
        Entry(
            key,
            "orl.solvers.frozen_lake.dynamic_programming:RulePolicy",
            f"exact: {summary}",
            "frozen_lake",
            kwargs={"maximise": goal},
        )
        for key, (goal, summary) in _LAKE_GOALS.items()
    ),
    *(
        Entry(key, "orl.solvers.hydrothermal.policies:RulePolicy", summary, "hydrothermal", kwargs={"rule": key})
        for key, summary in _HYDROTHERMAL_RULES.items()
    ),
)


def _sb3(key: str, target: str, summary: str, space: str | None = None) -> Entry:
    """``space``: function of ``orl.bench.search_spaces``, None for the one of the key's name."""
    space = key.replace("-", "_") if space is None else space
    return Entry(key, target, summary, search_space=f"orl.bench.search_spaces:{space}")


_ALGORITHMS = (
    _sb3("ppo", "stable_baselines3:PPO", "proximal policy optimisation"),
    _sb3("a2c", "stable_baselines3:A2C", "advantage actor-critic"),
    _sb3("dqn", "stable_baselines3:DQN", "deep Q-network"),
    _sb3("sac", "stable_baselines3:SAC", "soft actor-critic"),
    _sb3("td3", "stable_baselines3:TD3", "twin delayed deterministic policy gradient"),
    _sb3("ddpg", "stable_baselines3:DDPG", "deep deterministic policy gradient"),
    _sb3("maskable-ppo", "sb3_contrib:MaskablePPO", "PPO with illegal actions masked"),
    _sb3("recurrent-ppo", "sb3_contrib:RecurrentPPO", "PPO with an LSTM policy"),
    _sb3("trpo", "sb3_contrib:TRPO", "trust-region policy optimisation"),
    _sb3("qr-dqn", "sb3_contrib:QRDQN", "quantile-regression DQN"),
    _sb3("tqc", "sb3_contrib:TQC", "truncated quantile critics"),
    _sb3("cross-q", "sb3_contrib:CrossQ", "SAC without target networks, batch-normalised"),
    _sb3("ars", "sb3_contrib:ARS", "augmented random search"),
    _sb3("fast-ppo", "orl.fast.ppo:FastPPO", "ppo, the same mathematics in less time", "ppo"),
    _sb3(
        "fast-maskable-ppo",
        "orl.fast.ppo:FastMaskablePPO",
        "maskable-ppo, the same mathematics in less time",
        "maskable_ppo",
    ),
    _sb3("fast-sac", "orl.fast.sac:FastSAC", "sac, the same mathematics in less time", "sac"),
    _sb3("fast-td3", "orl.fast.td3:FastTD3", "td3, the same mathematics in less time", "td3"),
    Entry(
        "mdpo",
        "orl.mdpo:MDPO",
        "mirror descent policy optimisation, on-policy",
        search_space="orl.mdpo.search_space:mdpo",
    ),
    Entry(
        "off-policy-mdpo",
        "orl.mdpo:OffPolicyMDPO",
        "mirror descent policy optimisation, off-policy",
        search_space="orl.mdpo.search_space:off_policy_mdpo",
    ),
    Entry(
        "pdppo",
        "orl.pdppo:PDPPO",
        "post-decision PPO: a second critic between decision and noise",
        search_space="orl.pdppo.search_space:pdppo",
    ),
    Entry(
        "tsddr",
        "orl.tsddr:TSDDR",
        "two-stage deep decision rules: next states as decisions, gradients from duals",
        search_space="orl.tsddr.search_space:tsddr",
    ),
    Entry("reference-pdppo", "orl.pdppo:ReferencePDPPO", "the protocol of PDPPO's authors, for their figures"),
)


# ---- look-up -------------------------------------------------------------------------------------------------------
def _find(kind: str, name: str, rows: Iterable[Row], key: Callable[[Row], str]) -> Row:
    known = {key(row): row for row in rows}
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def environments(domain: str | None = None) -> tuple[Environment, ...]:
    """All environments, or those of a domain."""
    return tuple(e for e in _ENVIRONMENTS if domain is None or e.domain == _domain_name(domain))


def environment(id: str) -> Environment:
    """The environment of an id, with or without the ``orl:`` prefix. Raises UnknownNameError."""
    return _find("environment", id.removeprefix("orl:"), _ENVIRONMENTS, lambda e: e.id)


def domains() -> tuple[Domain, ...]:
    """All domains."""
    return _DOMAINS


def domain(name: str) -> Domain:
    """The domain of that name (``-`` and ``_`` are the same). Raises UnknownNameError."""
    return _find("domain", name.replace("-", "_"), _DOMAINS, lambda d: d.name)


def solvers(domain: str | None = None) -> tuple[Entry, ...]:
    """Entries of all solvers, or of a domain's."""
    return _of_domain(_SOLVERS, domain)


def solver(domain: str, key: str, **kwargs: Any) -> Any:
    """Make a solver of a domain: ``solver("job_shop", "cp-sat", num_workers=2)``. Raises UnknownNameError."""
    return _find(f"{_domain_name(domain)} solver", key, solvers(domain), lambda e: e.key).make(**kwargs)


def rules(domain: str | None = None) -> tuple[Entry, ...]:
    """Entries of all rule policies, or of a domain's: hand-written policies with SB3's ``predict``."""
    return _of_domain(_RULES, domain)


def rule(domain: str, key: str, env: Any, **kwargs: Any) -> Any:
    """Make a rule policy on an env, single or batched: ``rule("job_shop", "spt", env)``. Raises UnknownNameError."""
    return _find(f"{_domain_name(domain)} rule", key, rules(domain), lambda e: e.key).make(env=env, **kwargs)


def algorithms() -> tuple[Entry, ...]:
    """Entries of all learning algorithms."""
    return _ALGORITHMS


def algorithm(key: str) -> Any:
    """The class of a learning algorithm: ``algorithm("maskable-ppo")``. Raises UnknownNameError."""
    return algorithm_entry(key).load()


def algorithm_entry(key: str) -> Entry:
    """The entry of a learning algorithm. Raises UnknownNameError."""
    return _find("algorithm", key, _ALGORITHMS, lambda e: e.key)


def _domain_name(name: str) -> str:
    return domain(name).name


def _of_domain(rows: tuple[Entry, ...], name: str | None) -> tuple[Entry, ...]:
    return rows if name is None else tuple(e for e in rows if e.domain == _domain_name(name))


def register_envs() -> None:
    """Register every environment with Gymnasium; doing it again changes nothing.

    Gymnasium's passive checker and its order check stay on: measured on a Dict observation they cost 0.2 microseconds a
    step together (the checker looks at the first reset and steps only). The native batch has neither. No TimeLimit is
    registered: an episode ends where the problem ends.
    """
    for env in _ENVIRONMENTS:
        if env.id not in gymnasium.registry:
            gymnasium.register(
                env.id,
                entry_point=env.entry_point,
                vector_entry_point=env.vector_entry_point,
                kwargs=dict(env.kwargs),
            )
