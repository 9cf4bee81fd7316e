"""``check_vector_env``: conformance of anyone's Gymnasium VectorEnv, run as a sequence of small experiments."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from orl.common.action_masks import mask_width, random_legal_actions, split_masks
from orl.common.batched_values import copy_tree, equal_trees, row, shares_memory

Batch = VectorEnv[Any, Any, Any]


class VectorEnvError(ValueError):
    """A VectorEnv breaks a rule; the message names the rule, what was seen and how to mend it."""


def check_vector_env(
    env: Batch,
    *,
    single: Callable[[], gymnasium.Env[Any, Any]] | None = None,
    seed: int = 0,
    steps: int = 300,
    homogeneous: bool = True,
) -> None:
    """Run every rule against ``env``; the first one broken raises VectorEnvError.

    Rules, in order: spaces are batches of the single spaces; ``metadata["autoreset_mode"]`` names the mode; shapes,
    dtypes and membership of everything returned; action masks are ``bool[N, A]`` and never all False; the same seed
    gives the same trajectory, and an integer seed s means s + i for copy i; returned observations are not overwritten
    by later steps (unless the env says ``copy=False``); episodes end as the mode says (SAME_STEP: ``final_obs`` and
    the new episode's first observation; NEXT_STEP: one idle step with reward 0; DISABLED: nothing until a masked
    reset); ``reset(options={"reset_mask": ...})`` restarts the marked copies and leaves the others alone; with
    ``get_state(i)`` and ``set_state(i, state)``: exact snapshots of one copy; with ``single``: the batch equals N
    single envs.

    Actions are drawn at random, among the legal ones where there are masks. A UserWarning tells when no episode ended
    within ``steps``, since the rules about endings were then not tested.

    Args:
        env: The env to check; it is stepped and reset many times and stays open.
        single: Makes one single env for the comparison, e.g. ``lambda: gym.make(id)``.
        seed: Integer seed of the experiments.
        steps: Steps of each experiment.
        homogeneous: Whether all copies play the same problem; False skips the comparison of seeds between copies.

    Raises:
        VectorEnvError: A rule is broken.

    >>> from gymnasium.vector import SyncVectorEnv
    >>> fns = [lambda: gymnasium.make("CartPole-v1")] * 2
    >>> check_vector_env(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP))
    """
    mode = _check_declarations(env)
    first = _play(env, seed, steps)
    _check_same_seed(env, first, seed)
    if homogeneous and env.num_envs > 1:
        _check_seed_of_copies(env, first, seed, steps)
    if not any(step.over.any() for step in first.steps):
        warnings.warn(f"no episode of {env} ended within {steps} steps: ends were not checked", stacklevel=2)
    if env.num_envs > 1:
        _check_reset_mask(env, first, seed)
    if hasattr(env, "get_state") and hasattr(env, "set_state"):
        _check_snapshots(env, first, seed)
    if single is not None:
        _check_single(env, single, first, seed, mode)


# ---- recording -----------------------------------------------------------------------------------------------------
@dataclass
class _Step:
    """What one step returned, copied; ``masks`` and ``actions`` are those before the step."""

    actions: Any
    masks: npt.NDArray[np.bool_] | None
    obs: Any
    rewards: npt.NDArray[Any]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    infos: dict[str, Any]

    @property
    def over(self) -> npt.NDArray[np.bool_]:
        return self.terminated | self.truncated

    def same(self, other: _Step, i: int, j: int | None = None) -> bool:
        """Whether copy i of this step and copy j of the other returned the same."""
        j = i if j is None else j
        return (
            equal_trees(row(self.obs, i), row(other.obs, j))
            and bool(self.rewards[i] == other.rewards[j])
            and bool(self.terminated[i] == other.terminated[j])
            and bool(self.truncated[i] == other.truncated[j])
        )


@dataclass
class _Trajectory:
    obs: Any
    steps: list[_Step] = field(default_factory=list)


def _fail(env: Any, problem: str, advice: str) -> VectorEnvError:
    return VectorEnvError(f"{env}: {problem}. {advice}")


def _play(env: Batch, seed: int, steps: int, *, actions: list[Any] | None = None) -> _Trajectory:
    """Reset with ``seed`` and step, checking all that is returned; random legal actions unless given."""
    mode = env.metadata["autoreset_mode"]
    rng = np.random.default_rng(seed)
    obs, _ = _reset(env, seed=seed)
    trajectory = _Trajectory(copy_tree(obs))
    over = np.zeros(env.num_envs, np.bool_)
    for t in range(steps if actions is None else len(actions)):
        if mode is AutoresetMode.DISABLED and over.any():
            obs, _ = _reset(env, options={"reset_mask": over.copy()})
        masks = _masks(env)
        chosen = _random_actions(env, masks, rng) if actions is None else actions[t]
        held, copy = obs, copy_tree(obs)
        step = _step(env, chosen, masks)
        obs = step.obs
        if getattr(env.unwrapped, "copy", True) is not False:
            if shares_memory(held, obs) or not equal_trees(held, copy):
                raise _fail(env, "a step overwrote the observation returned before", "Return copies of the buffers")
        step.obs = copy_tree(obs)
        if mode is AutoresetMode.NEXT_STEP and over.any():
            _check_idle_step(env, step, over)
        if mode is AutoresetMode.SAME_STEP and step.over.any():
            _check_final(env, step)
        over = step.over
        trajectory.steps.append(step)
    return trajectory


def _reset(env: Batch, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    result = env.reset(**kwargs)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise _fail(env, f"reset returned {type(result).__name__}", "Return the pair (observations, infos: dict)")
    _check_obs(env, result[0], "reset")
    return result


def _step(env: Batch, actions: Any, masks: npt.NDArray[np.bool_] | None) -> _Step:
    result = env.step(actions)
    if not (isinstance(result, tuple) and len(result) == 5):
        raise _fail(env, "step did not return five values", "Return obs, rewards, terminated, truncated, infos")
    obs, rewards, terminated, truncated, infos = result
    _check_obs(env, obs, "step")
    n = env.num_envs
    for name, array, kind in (
        ("rewards", rewards, "f"),
        ("terminated", terminated, "b"),
        ("truncated", truncated, "b"),
    ):
        if not isinstance(array, np.ndarray) or array.shape != (n,) or array.dtype.kind != kind:
            wanted = "float" if kind == "f" else "bool"
            raise _fail(env, f"{name} is {_describe(array)}", f"Return a {wanted} array of shape ({n},)")
    if not np.isfinite(rewards).all():
        raise _fail(env, f"rewards hold {rewards}", "Return finite rewards")
    if not isinstance(infos, dict):
        raise _fail(env, f"infos is {type(infos).__name__}", "Return one dict of batched values")
    return _Step(actions, masks, obs, rewards.copy(), terminated.copy(), truncated.copy(), infos)


def _describe(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _check_obs(env: Batch, obs: Any, where: str) -> None:
    if not _has_dtypes(env.observation_space, obs):
        raise _fail(env, f"{where} returned observations of other keys, dtypes or shapes", f"{env.observation_space}")
    if not env.observation_space.contains(obs):
        raise _fail(env, f"{where} returned observations outside the space", f"The space is {env.observation_space}")


def _has_dtypes(space: spaces.Space[Any], value: Any) -> bool:
    if isinstance(space, spaces.Dict):
        return (
            isinstance(value, dict)
            and value.keys() == space.spaces.keys()
            and all(_has_dtypes(sub, value[key]) for key, sub in space.spaces.items())
        )
    if isinstance(space, spaces.Tuple):
        return isinstance(value, tuple) and all(map(_has_dtypes, space.spaces, value))
    if space.shape is None:
        return True
    return isinstance(value, np.ndarray) and value.dtype == space.dtype and value.shape == space.shape


# ---- actions -------------------------------------------------------------------------------------------------------
def _masks(env: Batch) -> npt.NDArray[np.bool_] | None:
    """The batch's action masks, checked; None if it has none."""
    if not hasattr(env, "action_masks"):
        return None
    masks = env.action_masks()
    width = mask_width(env.single_action_space)
    if not isinstance(masks, np.ndarray) or masks.shape != (env.num_envs, width) or masks.dtype != np.bool_:
        raise _fail(env, f"action_masks() is {_describe(masks)}", f"Return bool[{env.num_envs}, {width}]")
    for part in split_masks(env.single_action_space, masks):
        if not part.any(axis=1).all():
            raise _fail(env, "an action mask is all False", "Mark one action also in terminal states")
    return masks.copy()


def _random_actions(env: Batch, masks: npt.NDArray[np.bool_] | None, rng: np.random.Generator) -> Any:
    if masks is not None:
        return random_legal_actions(env.single_action_space, masks, rng).astype(env.action_space.dtype)
    env.action_space.seed(int(rng.integers(2**31)))
    return env.action_space.sample()


# ---- the rules -----------------------------------------------------------------------------------------------------
def _check_declarations(env: Batch) -> AutoresetMode:
    n = env.num_envs
    for name in ("observation_space", "action_space"):
        expected = batch_space(getattr(env, f"single_{name}"), n)
        if getattr(env, name) != expected:
            advice = f"Set it to gymnasium.vector.utils.batch_space(single_{name}, {n})"
            raise _fail(env, f"{name} is not the batch of single_{name}", advice)
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        advice = "Set it to a member of gymnasium.vector.AutoresetMode, per instance if the constructor chooses it"
        raise _fail(env, f"metadata['autoreset_mode'] is {mode!r}", advice)
    return mode


def _check_idle_step(env: Batch, step: _Step, restarted: npt.NDArray[np.bool_]) -> None:
    if step.rewards[restarted].any() or step.over[restarted].any():
        advice = "In NEXT_STEP mode the step after an end ignores the action, resets, and gives reward 0"
        raise _fail(env, "the step after an episode end had a reward or an end of its own", advice)


def _check_final(env: Batch, step: _Step) -> None:
    final, present = step.infos.get("final_obs"), step.infos.get("_final_obs")
    if final is None or present is None or not np.array_equal(present, step.over):
        advice = "In SAME_STEP mode infos['final_obs'] and the mask infos['_final_obs'] cover the ended copies"
        raise _fail(env, "an episode ended without its final observation", advice)
    for i in np.flatnonzero(step.over):
        if not env.single_observation_space.contains(row(final, int(i))):
            raise _fail(env, "a final observation lies outside the space", f"{env.single_observation_space}")
    if "final_info" not in step.infos and any(not key.lstrip("_").startswith("final_") for key in step.infos):
        raise _fail(env, "an episode ended without infos['final_info']", "Put the infos of the ended episode there")


def _check_same_seed(env: Batch, first: _Trajectory, seed: int) -> None:
    again = _play(env, seed, 0, actions=[step.actions for step in first.steps])
    if not equal_trees(first.obs, again.obs):
        raise _fail(env, f"reset(seed={seed}) twice gave two observations", "Seed every random source in reset")
    for t, (a, b) in enumerate(zip(first.steps, again.steps, strict=True)):
        if not all(a.same(b, i) for i in range(env.num_envs)):
            advice = "All randomness must come from generators seeded by reset, and none from buffers left behind"
            raise _fail(env, f"the same seed and actions gave another step {t}", advice)


def _check_seed_of_copies(env: Batch, first: _Trajectory, seed: int, steps: int) -> None:
    """Copy 1 under seed s plays what copy 0 plays under seed s + 1."""
    advice = "An integer seed s means s + i for copy i, with one generator a copy"
    mode = env.metadata["autoreset_mode"]
    obs, _ = _reset(env, seed=seed + 1)
    if not equal_trees(row(first.obs, 1), row(obs, 0)):
        raise _fail(env, f"copy 1 under seed {seed} differs from copy 0 under seed {seed + 1} at reset", advice)
    over = np.zeros(env.num_envs, np.bool_)
    rng = np.random.default_rng(seed)
    for t, step in enumerate(first.steps[:steps]):
        if mode is AutoresetMode.DISABLED and over.any():
            _reset(env, options={"reset_mask": over.copy()})
        masks = _masks(env)
        actions = _random_actions(env, masks, rng)
        _assign(actions, 0, row(step.actions, 1))
        other = _step(env, actions, masks)
        if not step.same(other, 1, 0):
            raise _fail(env, f"copy 1 under seed {seed} left copy 0 under seed {seed + 1} at step {t}", advice)
        over = other.over


def _assign(actions: Any, i: int, value: Any) -> None:
    """Write ``value`` as the action of copy ``i``, in place."""
    if isinstance(actions, dict):
        for key in actions:
            _assign(actions[key], i, value[key])
    elif isinstance(actions, tuple):
        for part, item in zip(actions, value, strict=True):
            _assign(part, i, item)
    else:
        actions[i] = value


def _check_reset_mask(env: Batch, first: _Trajectory, seed: int) -> None:
    """After a masked reset in mid-episode the other copies go on as if nothing had happened."""
    quiet = next((t for t, step in enumerate(first.steps) if step.over.any()), len(first.steps))
    half = quiet // 2
    before = _play(env, seed, 0, actions=[step.actions for step in first.steps[:half]])
    held = before.steps[-1].obs if half else before.obs
    mask = np.zeros(env.num_envs, np.bool_)
    mask[-1] = True
    obs, _ = _reset(env, seed=seed, options={"reset_mask": mask.copy()})
    advice = "reset(options={'reset_mask': bool[N]}) restarts the marked copies and returns the others' observations"
    for i in range(env.num_envs - 1):
        if not equal_trees(row(held, i), row(obs, i)):
            raise _fail(env, f"a masked reset changed the observation of copy {i} outside the mask", advice)
    last = env.num_envs - 1
    if not equal_trees(row(first.obs, last), row(obs, last)):
        raise _fail(env, "a masked reset with a seed did not restart the marked copy with that seed", advice)
    rng = np.random.default_rng(seed)
    for t in range(half, quiet):
        masks = _masks(env)
        actions = _random_actions(env, masks, rng)
        for i in range(last):
            _assign(actions, i, row(first.steps[t].actions, i))
        step = _step(env, actions, masks)
        if step.over[last]:
            break
        if not all(step.same(first.steps[t], i) for i in range(last)):
            raise _fail(env, f"copies outside the mask of a reset took another course at step {t}", advice)


def _check_snapshots(env: Any, first: _Trajectory, seed: int) -> None:
    """Copy 0 is set back to a snapshot: it repeats its steps, and the others do not notice."""
    quiet = next((t for t, step in enumerate(first.steps) if step.over.any()), len(first.steps))
    start, stop = quiet // 3, 2 * quiet // 3
    trajectory = _play(env, seed, 0, actions=[step.actions for step in first.steps[:start]])
    held = trajectory.steps[-1].obs if start else trajectory.obs
    masks_then = _masks(env)
    state = env.get_state(0)
    for t in range(start, stop):
        _step(env, first.steps[t].actions, None)
    obs = env.set_state(0, state)
    advice = "A state is all of one copy: arrays, elapsed steps, position in the noise; get_state must copy"
    if not equal_trees(obs, row(held, 0)):
        raise _fail(env, "set_state(0, get_state(0)) returned another observation", advice)
    masks_now = _masks(env)
    if masks_then is not None and masks_now is not None and not np.array_equal(masks_then[0], masks_now[0]):
        raise _fail(env, "set_state(0, get_state(0)) gave another action mask", advice)
    for k, t in enumerate(range(start, stop)):
        if stop + k >= quiet:
            break
        actions = copy_tree(first.steps[stop + k].actions)
        _assign(actions, 0, row(first.steps[t].actions, 0))
        step = _step(env, actions, None)
        if not step.same(first.steps[t], 0):
            raise _fail(env, f"copy 0 did not repeat step {t} from its snapshot", advice)
        if not all(step.same(first.steps[stop + k], i) for i in range(1, env.num_envs)):
            raise _fail(env, "set_state of copy 0 changed the course of another copy", advice)
    if env.num_envs > 1:
        obs = env.set_state(env.num_envs - 1, state)
        if not equal_trees(obs, row(held, 0)):
            raise _fail(env, "a state of copy 0 set into another copy gave another observation", advice)


def _check_single(
    env: Batch, single: Callable[[], gymnasium.Env[Any, Any]], first: _Trajectory, seed: int, mode: AutoresetMode
) -> None:
    """Replay the batch's actions in single envs, restarting them as the mode says."""
    advice = "One transition behind both faces: the batch must equal its single envs"
    for i in range(env.num_envs):
        alone = single()
        try:
            _replay_one(env, alone, first, i, seed, mode, advice)
        finally:
            alone.close()


def _replay_one(
    env: Batch, alone: gymnasium.Env[Any, Any], first: _Trajectory, i: int, seed: int, mode: AutoresetMode, advice: str
) -> None:
    obs, _ = alone.reset(seed=seed + i)
    if not equal_trees(obs, row(first.obs, i)):
        raise _fail(env, f"copy {i} and the single env differ after reset(seed={seed + i})", advice)
    over = False
    for t, step in enumerate(first.steps):
        if mode is AutoresetMode.DISABLED and over:
            alone.reset()
        if mode is AutoresetMode.NEXT_STEP and over:
            obs, _ = alone.reset()
            reward, terminated, truncated = 0.0, False, False
        else:
            masks = _single_masks(alone)
            if masks is not None and step.masks is not None and not np.array_equal(masks, step.masks[i]):
                raise _fail(env, f"copy {i} and the single env have two action masks at step {t}", advice)
            action = _single_action(env, step.actions, i)
            obs, reward, terminated, truncated, _ = alone.step(action)  # type: ignore[assignment]
        over = bool(terminated or truncated)
        if mode is AutoresetMode.SAME_STEP and over:
            if not equal_trees(obs, row(step.infos["final_obs"], i)):
                raise _fail(env, f"copy {i} and the single env have two final observations at step {t}", advice)
            obs, _ = alone.reset()
        same = (
            equal_trees(obs, row(step.obs, i))
            and bool(step.rewards[i] == step.rewards.dtype.type(reward))
            and (bool(step.terminated[i]), bool(step.truncated[i])) == (bool(terminated), bool(truncated))
        )
        if not same:
            raise _fail(env, f"copy {i} and the single env differ at step {t}", advice)


def _single_masks(env: gymnasium.Env[Any, Any]) -> npt.NDArray[np.bool_] | None:
    return env.get_wrapper_attr("action_masks")() if env.has_wrapper_attr("action_masks") else None


def _single_action(env: Batch, actions: Any, i: int) -> Any:
    return list(iterate(env.action_space, actions))[i]
