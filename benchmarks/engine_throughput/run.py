"""Training steps a CPU-second: the fast engine beside Stable-Baselines3, sbx and CleanRL, one thread each, in turn.

    python benchmarks/engine_throughput/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/engine_throughput/run.py --quick    # within a minute, without sbx and CleanRL
    python benchmarks/engine_throughput/run.py --case "PPO, Hopper-v5"    # that case alone

A sample is a piece of ``learn``, rollouts and updates, on a model that has been trained a little before. Ours and SB3
take turns in one process, the peers in theirs. Before anything is timed, ours and SB3 learn the same for a while and
must end with the same parameters.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
from peers import client

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "samples.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

DUMMY, LEAN, BRIDGE = "DummyVecEnv", "LeanVecEnv", "orl.make_vec"
BUSY = 1.0
"""Load of the machine above which a full run says that its figures will be poor."""

PPO_TOLERANCE, SAC_TOLERANCE = 1e-5, 1e-4
SHORT_EPISODES = {"max_episode_steps": 16}
"""Contacts of MuJoCo's bodies amplify a rounding error of an action with every step; short episodes keep it small."""


@dataclass(frozen=True)
class Learner:
    """A contender that learns in this process.

    Attributes:
        name: Unique in its case.
        algorithm: ``"module:class"``.
        vec_env: Where its envs run: DUMMY, LEAN or BRIDGE.
        arguments: Keyword arguments of the class beside those of the case.
    """

    name: str
    algorithm: str
    vec_env: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A contender that learns in a process and virtual environment of its own."""

    name: str
    title: str
    folder: str
    algorithm: str
    env_id: str
    net_arch: tuple[int, ...] | None = None
    """Widths of hidden layers where the peer's default is not SB3's."""


@dataclass(frozen=True)
class Check:
    """Two learners that must end with the same parameters (largest difference at most ``tolerance``)."""

    one: Learner
    other: Learner
    steps: int
    tolerance: float
    env_options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Contenders on one environment; the first one is what the others are compared with.

    Attributes:
        name: Unique; stands in the results.
        steps: Environment steps of a sample, over all copies.
        warm_up: The same before the first sample.
    """

    name: str
    env_id: str
    contenders: tuple[Learner | Peer, ...]
    checks: tuple[Check, ...]
    steps: int
    warm_up: int
    copies: int = 1
    env_options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    repetitions: int = 7


# ---- what is measured ------------------------------------------------------------------------------------------------
SB3_PPO = Learner("SB3 PPO", "stable_baselines3:PPO", DUMMY)
FAST_PPO = Learner("FastPPO", "orl.fast.ppo:FastPPO", LEAN, {"engine": "fast"})
FAST_PPO_DUMMY = replace(FAST_PPO, name="FastPPO, SB3's VecEnv", vec_env=DUMMY)
MDPO = Learner("MDPO", "orl.mdpo:MDPO", LEAN, {"engine": "fast"})
SBX_PPO = Peer("sbx PPO", "sbx 0.28.0 PPO (JAX)", "sbx", "PPO", "Hopper-v5")
CLEANRL = Peer("CleanRL PPO", "CleanRL 1.2.0 PPO", "cleanrl", "PPO", "Hopper-v4")
SB3_SAC = Learner("SB3 SAC", "stable_baselines3:SAC", DUMMY)
FAST_SAC = Learner("FastSAC", "orl.fast.sac:FastSAC", LEAN, {"engine": "fast"})
SBX_SAC = Peer("sbx SAC", "sbx 0.28.0 SAC (JAX)", "sbx", "SAC", "Hopper-v5")
SB3_TD3 = Learner("SB3 TD3", "stable_baselines3:TD3", DUMMY)
FAST_TD3 = Learner("FastTD3", "orl.fast.td3:FastTD3", LEAN, {"engine": "fast"})
SBX_TD3 = Peer("sbx TD3", "sbx 0.28.0 TD3 (JAX)", "sbx", "TD3", "Hopper-v5", (400, 300))
FAST_PPO_BRIDGE = replace(FAST_PPO, vec_env=BRIDGE)
SB3_MASKABLE = Learner("sb3-contrib MaskablePPO", "sb3_contrib:MaskablePPO", DUMMY)
FAST_MASKABLE = Learner("FastMaskablePPO", "orl.fast.ppo:FastMaskablePPO", BRIDGE, {"engine": "fast"})
FALLBACK_PPO = Learner("FastPPO, fallback", "orl.fast.ppo:FastPPO", DUMMY)
FALLBACK_SAC = Learner("FastSAC, fallback", "orl.fast.sac:FastSAC", DUMMY)

ELU = {"policy_kwargs": {"activation_fn": {"object": "torch.nn:ELU"}}}
"""An activation that the fast engine does not know."""


def ppo_check(one: Learner, other: Learner, **arguments: Any) -> Check:
    """Two rollouts of 64 steps in short episodes, with ten epochs each."""
    return Check(one, other, 128, PPO_TOLERANCE, SHORT_EPISODES, {"n_steps": 64, **arguments})


def off_policy_check(one: Learner, other: Learner) -> Check:
    """Fifty gradient steps after ten steps of warm-up."""
    return Check(one, other, 60, SAC_TOLERANCE, SHORT_EPISODES, {"learning_starts": 10, "buffer_size": 1000})


PPO_HOPPER = Case(
    "PPO, Hopper-v5",
    "Hopper-v5",
    (SB3_PPO, FAST_PPO, FAST_PPO_DUMMY, MDPO, SBX_PPO, CLEANRL),
    (
        ppo_check(SB3_PPO, FAST_PPO),
        ppo_check(SB3_PPO, FAST_PPO_DUMMY),
        ppo_check(replace(MDPO, arguments={"engine": "torch"}), MDPO, vf_batch_size=16),
    ),
    steps=8192,
    warm_up=2048,
    arguments={"n_steps": 2048},
)
PPO_HALFCHEETAH = Case(
    "PPO, HalfCheetah-v5",
    "HalfCheetah-v5",
    (SB3_PPO, FAST_PPO, FAST_PPO_DUMMY),
    (ppo_check(SB3_PPO, FAST_PPO), ppo_check(SB3_PPO, FAST_PPO_DUMMY)),
    steps=8192,
    warm_up=2048,
    arguments={"n_steps": 2048},
)
SAC_HOPPER = Case(
    "SAC, Hopper-v5",
    "Hopper-v5",
    (SB3_SAC, FAST_SAC, SBX_SAC),
    (off_policy_check(SB3_SAC, FAST_SAC),),
    steps=500,
    warm_up=150,
)
TD3_HOPPER = Case(
    "TD3, Hopper-v5",
    "Hopper-v5",
    (SB3_TD3, FAST_TD3, SBX_TD3),
    (off_policy_check(SB3_TD3, FAST_TD3),),
    steps=500,
    warm_up=150,
)
PPO_CARTPOLE = Case(
    "PPO, CartPole-v1 x 64",
    "CartPole-v1",
    (SB3_PPO, FAST_PPO_BRIDGE),
    (
        # A native batch draws its first states from one generator, so both learners get it here.
        Check(replace(SB3_PPO, vec_env=BRIDGE), FAST_PPO_BRIDGE, 4096, PPO_TOLERANCE, arguments={"n_epochs": 2}),
    ),
    steps=8192,
    warm_up=2048,
    copies=64,
    arguments={"n_steps": 32},
)
MASKABLE_JOB_SHOP = Case(
    "MaskablePPO, ta01 x 64",
    "orl/JobShop-v0",
    (SB3_MASKABLE, FAST_MASKABLE),
    (Check(SB3_MASKABLE, FAST_MASKABLE, 4096, PPO_TOLERANCE, arguments={"n_epochs": 2}),),
    steps=8192,
    warm_up=2048,
    copies=64,
    env_options={"instance": "ta01", "observation": "compact"},
    arguments={"n_steps": 32},
)
PPO_FALLBACK = Case(
    "PPO with ELU, Hopper-v5",
    "Hopper-v5",
    (SB3_PPO, FALLBACK_PPO),
    (ppo_check(SB3_PPO, FALLBACK_PPO),),
    steps=4096,
    warm_up=2048,
    arguments={"n_steps": 2048, **ELU},
    repetitions=9,
)
SAC_FALLBACK = Case(
    "SAC with ELU, Hopper-v5",
    "Hopper-v5",
    (SB3_SAC, FALLBACK_SAC),
    (off_policy_check(SB3_SAC, FALLBACK_SAC),),
    steps=300,
    warm_up=150,
    arguments=ELU,
    repetitions=9,
)
FULL = (
    PPO_HOPPER,
    PPO_HALFCHEETAH,
    SAC_HOPPER,
    TD3_HOPPER,
    PPO_CARTPOLE,
    MASKABLE_JOB_SHOP,
    PPO_FALLBACK,
    SAC_FALLBACK,
)

FIGURES = {
    "ratio_vs_sb3_ppo_hopper": (PPO_HOPPER, FAST_PPO, SB3_PPO),
    "ratio_vs_sb3_ppo_halfcheetah": (PPO_HALFCHEETAH, FAST_PPO, SB3_PPO),
    "ratio_vs_sb3_sac_hopper": (SAC_HOPPER, FAST_SAC, SB3_SAC),
    "ratio_vs_sb3_td3_hopper": (TD3_HOPPER, FAST_TD3, SB3_TD3),
    "mdpo_ratio_vs_sb3_ppo_hopper": (PPO_HOPPER, MDPO, SB3_PPO),
    "ratio_vs_sb3_ppo_cartpole_64": (PPO_CARTPOLE, FAST_PPO_BRIDGE, SB3_PPO),
    "ratio_vs_sb3_contrib_maskable_ppo_ta01_64": (MASKABLE_JOB_SHOP, FAST_MASKABLE, SB3_MASKABLE),
    "dummy_vec_env_ratio_vs_sb3_ppo_hopper": (PPO_HOPPER, FAST_PPO_DUMMY, SB3_PPO),
    "dummy_vec_env_ratio_vs_sb3_ppo_halfcheetah": (PPO_HALFCHEETAH, FAST_PPO_DUMMY, SB3_PPO),
    "fallback_ratio_vs_sb3_ppo": (PPO_FALLBACK, FALLBACK_PPO, SB3_PPO),
    "fallback_ratio_vs_sb3_sac": (SAC_FALLBACK, FALLBACK_SAC, SB3_SAC),
    "ratio_vs_sbx_ppo_hopper": (PPO_HOPPER, FAST_PPO, SBX_PPO),
    "ratio_vs_cleanrl_ppo_hopper": (PPO_HOPPER, FAST_PPO, CLEANRL),
    "ratio_vs_sbx_sac_hopper": (SAC_HOPPER, FAST_SAC, SBX_SAC),
    "ratio_vs_sbx_td3_hopper": (TD3_HOPPER, FAST_TD3, SBX_TD3),
}
"""Keys of the RESULT line: the rate of the first contender over that of the second, in a case."""


def shortened(case: Case) -> Case:
    """The case for ``--quick``: short rollouts, few repetitions, without peers."""
    ours = tuple(contender for contender in case.contenders if isinstance(contender, Learner))
    if "n_steps" not in case.arguments:
        return replace(case, contenders=ours, steps=40, warm_up=120, repetitions=3)
    rollout = 512 if case.copies == 1 else 16 * case.copies
    arguments = {**case.arguments, "n_steps": rollout // case.copies}
    return replace(case, contenders=ours, steps=rollout, warm_up=rollout, arguments=arguments, repetitions=3)


# ---- contenders ------------------------------------------------------------------------------------------------------
def make_envs(kind: str, env_id: str, copies: int, options: Mapping[str, Any]) -> Any:
    """``copies`` of an env with episode statistics, as the users of each VecEnv make them."""
    import gymnasium
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    import orl
    from orl.fast.lean_vec_env import LeanVecEnv

    def make() -> Any:
        return gymnasium.make(env_id, disable_env_checker=True, **options)

    if kind == BRIDGE:
        return VecMonitor(orl.make_vec(env_id, copies, **options))
    if kind == LEAN:
        return LeanVecEnv([make] * copies, monitor=True)
    return DummyVecEnv([lambda: Monitor(make())] * copies)


def make_model(learner: Learner, case: Case, env_options: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
    """A new model on new envs, with seed 0."""
    from orl.registry import resolve
    from orl.targets import build_targets

    env = make_envs(learner.vec_env, case.env_id, case.copies, {**case.env_options, **(env_options or {})})
    merged = build_targets({**case.arguments, **learner.arguments, **arguments})
    return resolve(learner.algorithm)("MlpPolicy", env, seed=0, device="cpu", **merged)


def check_equal(case: Case) -> None:
    """Ours and SB3 learn the same for a while: same actions, same parameters within the tolerance; else end here."""
    for check in case.checks:
        # One after the other: a new model seeds the random numbers of the process.
        models = [
            make_model(learner, case, check.env_options, **check.arguments).learn(check.steps)
            for learner in (check.one, check.other)
        ]
        one, other = (model.policy.state_dict() for model in models)
        if one.keys() != other.keys():
            raise SystemExit(f"{case.name}: {check.one.name} and {check.other.name} have other parameters")
        difference = max((one[key] - other[key]).abs().max().item() for key in one)
        if not difference <= check.tolerance:
            raise SystemExit(
                f"{case.name}: the parameters of {check.one.name} and {check.other.name} differ by {difference:.1e} "
                f"after {check.steps} steps, more than {check.tolerance:.0e}: not the same work"
            )
        print(
            f"{case.name}: {check.one.name} ({check.one.arguments.get('engine', check.one.vec_env)}) and "
            f"{check.other.name}: parameters equal after {check.steps} steps within {difference:.1e}",
            flush=True,
        )
        for model in models:
            model.env.close()


def learner_runner(learner: Learner, case: Case) -> Callable[[], dict[str, Any]]:
    """Warms a model up; each call then learns for ``case.steps``."""
    model = make_model(learner, case)
    model.learn(case.warm_up)

    def run() -> dict[str, Any]:
        before, wall, cpu = model.num_timesteps, time.perf_counter(), time.process_time()
        model.learn(case.steps, reset_num_timesteps=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {
            "steps": model.num_timesteps - before,
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "peak_memory_mb": measure.peak_memory_mb(),
        }

    return run


def peer_runner(peer: Peer, case: Case, worker: client.Worker) -> Callable[[], dict[str, Any]]:
    """The same in the peer's process."""
    learner = {"algorithm": peer.algorithm, "env_id": peer.env_id, "net_arch": peer.net_arch}
    worker.call("load", **learner, n_steps=case.arguments.get("n_steps"))
    worker.call("run", steps=case.warm_up)
    return lambda: worker.call("run", steps=case.steps)


def measure_case(case: Case, on_sample: Callable[[dict[str, Any]], object], rounds_done: int = 0) -> None:
    """Check and measure one case, calling ``on_sample(row)`` for every sample."""
    check_equal(case)
    with ExitStack() as stack:
        runners: dict[str, Callable[[], dict[str, Any]]] = {}
        for contender in case.contenders:
            if isinstance(contender, Peer):
                worker = stack.enter_context(client.peer(contender.folder))
                runners[contender.name] = peer_runner(contender, case, worker)
            else:
                runners[contender.name] = learner_runner(contender, case)
        for repetition, name, sample in measure.interleaved(runners, case.repetitions - rounds_done):
            on_sample(
                {"case": case.name, "repetition": rounds_done + repetition, "contender": name}
                | {key: sample[key] for key in ("steps", "cpu_seconds", "wall_seconds", "peak_memory_mb")}
                | {"load": round(os.getloadavg()[0], 2), "date": measure.today()}
            )


# ---- results ---------------------------------------------------------------------------------------------------------
def rates(rows: Iterable[Mapping[str, Any]], case: Case, name: str) -> dict[int, float]:
    """Steps a CPU-second of a contender by round."""
    return {
        int(row["repetition"]): float(row["steps"]) / float(row["cpu_seconds"])
        for row in rows
        if row["case"] == case.name and row["contender"] == name
    }


def ratios(rows: Sequence[Mapping[str, Any]], case: Case, name: str, reference: str) -> list[float]:
    """Rate of a contender over that of another, round by round."""
    mine, others = rates(rows, case, name), rates(rows, case, reference)
    return [mine[i] / others[i] for i in sorted(mine.keys() & others.keys())]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each case and contender: medians over the rounds, and the ratio to the case's first contender."""
    out: list[dict[str, Any]] = []
    for case in FULL:
        for contender in case.contenders:
            mine = [row for row in rows if row["case"] == case.name and row["contender"] == contender.name]
            if not mine:
                continue
            first = case.contenders[0].name
            relative = [] if contender.name == first else ratios(rows, case, contender.name, first)
            out.append(
                {
                    "case": case.name,
                    "learner": contender.title if isinstance(contender, Peer) else contender.name.partition(",")[0],
                    "VecEnv": "its own" if isinstance(contender, Peer) else contender.vec_env,
                    "steps/CPU-s": measure.median(rates(mine, case, contender.name).values()),
                    "ratio": measure.median(relative) if relative else None,
                    "lowest": min(relative) if relative else None,
                    "highest": max(relative) if relative else None,
                    "rounds": len(mine),
                    "load": measure.median(float(row["load"]) for row in mine),
                }
            )
    return out


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of the RESULT line: medians of ratios within a round, as far as they were measured."""
    out = {}
    for key, (case, mine, reference) in FIGURES.items():
        if values := ratios(rows, case, mine.name, reference.name):
            out[key] = measure.median(values)
    return out | {"peak_memory_mb": measure.peak_memory_mb()}


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    packages = ("numpy", "numba", "gymnasium", "mujoco", "stable-baselines3", "sb3-contrib", "torch")
    return {"date": measure.today()} | measure.machine() | measure.versions(*packages)


def quick(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Short samples that are printed and not kept."""
    samples: list[dict[str, Any]] = []
    for case in cases:
        measure_case(shortened(case), samples.append)
    return samples


def full(cases: Sequence[Case], fresh: bool) -> list[dict[str, str]]:
    """The run whose samples are kept; goes on after the last complete round of each case."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    try:
        client.ensure_installed("sbx", "cleanrl")
    except client.PeerMissing as error:
        raise SystemExit(f"ERROR: {error}") from None
    if os.getloadavg()[0] > BUSY:
        print(f"WARNING: load {os.getloadavg()[0]:.1f}; measure on an idle machine", file=sys.stderr, flush=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "numba", "torch", "stable-baselines3", "mujoco")
    for case in cases:
        names = [contender.name for contender in case.contenders]
        complete = measure.complete_rounds(SAMPLES, names, case=case.name)
        if complete < case.repetitions:
            print(f"{case.name}: {case.repetitions - complete} of {case.repetitions} rounds to go", flush=True)
            measure_case(case, lambda row: measure.append_row(SAMPLES, row), complete)
    rows = measure.read_rows(SAMPLES)
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", measure.table(summary(rows)) + "\n\n" + note)
    return rows


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    parser = measure.argument_parser(__doc__)
    parser.add_argument("--case", action="append", choices=[case.name for case in FULL], help="only these cases")
    options = parser.parse_args()
    cases = [case for case in FULL if options.case is None or case.name in options.case]
    measure.limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # MuJoCo writes its log where it is started
        import torch

        torch.set_num_threads(1)
        rows: Sequence[Mapping[str, Any]] = quick(cases) if options.quick else full(cases, options.fresh)
        os.chdir(FOLDER)
    print(measure.table(summary(rows)))
    print(measure.describe(environment()))
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
