"""Any Gymnasium VectorEnv as a stable-baselines3 VecEnv, and ``make_vec`` that builds one from an id.

The only module of ``orl.common`` that meets SB3. A step costs no Python work per copy: one call of the batch, one list
of empty dicts, and real work only for copies whose episode ended.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from orl.common.batched_values import copy_tree, equal_trees, is_batch, row, shares_memory, split_infos
from orl.common.errors import IllegalActionError
from orl.common.illegal_actions import MaskWatch
from orl.common.protocols import IllegalActions

MASKS = "action_masks"
_WHOLE_BATCH_ONLY = frozenset({"reset", "step"})
_FINAL_KEYS = frozenset({"final_obs", "_final_obs", "final_info", "_final_info"})
_MISSING = object()
_SINGLE_SPACES = {"observation_space": "single_observation_space", "action_space": "single_action_space"}


class GymVecEnv(VecEnv):
    """A Gymnasium VectorEnv behind SB3's VecEnv interface.

    VecMonitor, VecNormalize, EvalCallback, MaskablePPO and ``sb3_contrib``'s ``evaluate_policy`` work on top;
    VecNormalize refuses a Dict with a part that is no Box until ``norm_obs_keys`` names the parts to normalise.
    Attributes of the native env, side channels among them, are read as whole batches by plain attribute access, through
    any stack of VecEnvWrappers: ``vec.illegal_actions`` is ``int[N]``; arrays come as copies. ``get_attr`` gives them
    copy by copy.

    ``seed(s)`` seeds copy i with s + i at the next ``reset``, and ``set_options`` passes reset options then. A copy
    that ends is reset at once: its info carries ``terminal_observation`` and ``TimeLimit.truncated``, its reset info
    stands in ``reset_infos``.

    ``env_method("action_masks")`` gives one ``bool[A]`` per copy. A method of the batch whose first parameter is called
    ``i`` acts on one copy: ``env_method("get_state", indices=3)``, ``env_method("set_state", state, indices=3)`` (the
    caller holds the observation that it returns; the next ``step`` goes on from there). Others are called once.

    Masked envs warn by themselves when they replace illegal actions of a policy that never asked for masks
    (:class:`orl.common.illegal_actions.MaskWatch`); under ``illegal="raise"`` the bridge gives that advice together
    with the error.

    Args:
        env: A VectorEnv with ``metadata["autoreset_mode"]`` SAME_STEP, or DISABLED and honouring
            ``reset(options={"reset_mask": bool[N]})``.

    Raises:
        ValueError: The env resets in another way; the message says how to make one that fits.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
            raise ValueError(
                f"{env} has autoreset mode {getattr(mode, 'name', mode)}, but SB3 resets a finished copy in the same "
                "step. Make it with autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP (for envs without a batch "
                "of their own: gymnasium.make_vec(id, num_envs, vectorization_mode='sync', "
                "vector_kwargs={'autoreset_mode': ...})), or with DISABLED if it honours "
                "reset(options={'reset_mask': bool[N]}); and state the mode in metadata['autoreset_mode']."
            )
        self.env = env
        self._resets_itself = mode is AutoresetMode.SAME_STEP
        self._reset_mask_trusted = False
        self._watch = MaskWatch()
        self._buffered: bool = getattr(env.unwrapped, "copy", True) is False
        self._unproven = 10
        self._last_obs: Any = None
        self._prototype: gymnasium.Env[Any, Any] | None = None
        self._actions: Any = None
        self._per_copy: dict[str, bool] = {}
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    # ---- reset and step ----------------------------------------------------------------------------------------
    def reset(self) -> VecEnvObs:
        """Reset all copies with the seeds and options set before; returns the batch of observations."""
        groups = _option_groups(self._options)
        seed = _seed_argument(self._seeds)
        obs, infos = self.env.reset(seed=cast(Any, seed), options=dict(groups[0][0]) or None)
        self.reset_infos = split_infos(infos, range(self.num_envs), self.num_envs)
        for options, members in groups[1:]:
            mask = np.zeros(self.num_envs, np.bool_)
            mask[members] = True
            obs, infos = self.env.reset(seed=cast(Any, seed), options={**options, "reset_mask": mask})
            for i, info in zip(members, split_infos(infos, members, self.num_envs), strict=True):
                self.reset_infos[i] = info
        self._reset_seeds()
        self._reset_options()
        self._watch.reset()
        return cast(VecEnvObs, self._fresh(obs))

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        try:
            obs, rewards, terminated, truncated, infos = self.env.step(self._actions)
        except IllegalActionError:
            self._watch.check(1, stacklevel=3)
            raise
        dones = np.logical_or(terminated, truncated)
        if infos:
            step_infos = {key: value for key, value in infos.items() if key not in _FINAL_KEYS}
            out = split_infos(step_infos, range(self.num_envs), self.num_envs)
        else:
            out = [{} for _ in range(self.num_envs)]
        if dones.any():
            ended = np.flatnonzero(dones).tolist()
            if self._resets_itself:
                final = infos.get("final_obs")
                if final is None:
                    raise ValueError(f"{self.env} declares SAME_STEP but gave no infos['final_obs'] at an episode end")
                for i, info in zip(ended, split_infos(infos.get("final_info", {}), ended, self.num_envs), strict=True):
                    self.reset_infos[i], out[i] = out[i], info
                    info["terminal_observation"] = copy_tree(row(final, i))
            else:
                for i in ended:
                    out[i]["terminal_observation"] = copy_tree(row(obs, i))
                obs = self._reset_ended(obs, dones, ended)
            for i in ended:
                out[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return (
            cast(VecEnvObs, self._fresh(obs)),
            np.array(rewards, np.float32),
            dones,
            out,
        )

    def _reset_ended(self, obs: Any, dones: npt.NDArray[np.bool_], ended: list[int]) -> Any:
        """Masked reset of a DISABLED env; the first partial one checks that the other copies went untouched."""
        before = None if self._reset_mask_trusted or dones.all() else copy_tree(obs)
        obs, infos = self.env.reset(options={"reset_mask": dones.copy()})
        if before is not None:
            self._require_equal(before, obs, ~dones)
            self._reset_mask_trusted = True
        for i, info in zip(ended, split_infos(infos, ended, self.num_envs), strict=True):
            self.reset_infos[i] = info
        return obs

    def _require_equal(self, before: Any, after: Any, rows: npt.NDArray[np.bool_]) -> None:
        if not all(equal_trees(row(before, i), row(after, i)) for i in np.flatnonzero(rows).tolist()):
            raise ValueError(
                f"{self.env} has autoreset mode DISABLED but does not honour reset(options={{'reset_mask': bool[N]}}): "
                "copies outside the mask changed. Make it with autoreset_mode=AutoresetMode.SAME_STEP, or reset only "
                "the masked copies."
            )

    def _fresh(self, obs: Any) -> Any:
        """``obs``, copied if the env hands out the same buffers again (SB3 keeps the last observation).

        An env that says ``copy=False`` is believed; of others the first ten observations are compared with the ones
        before.
        """
        if self._unproven:
            self._unproven -= 1
            self._buffered |= self._last_obs is not None and shares_memory(obs, self._last_obs)
            self._last_obs = obs if self._unproven else None
        return copy_tree(obs) if self._buffered else obs

    # ---- the rest of the VecEnv interface ------------------------------------------------------------------------
    def has_attr(self, attr_name: str) -> bool:
        """Whether the batch (or every copy of a Sync/AsyncVectorEnv) has that attribute."""
        try:
            self.get_attr(attr_name)
        except AttributeError:
            return False
        return True

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """One value a copy.

        An array with leading axis N, or a list or tuple of length N, gives copy i its entry i; a method gives a
        callable for copy i; anything else (``metadata``, ``spec``, ``render_mode``) is the same for all.
        ``observation_space`` and ``action_space`` are those of one copy.
        """
        members = list(self._get_indices(indices))
        name = _SINGLE_SPACES.get(attr_name, attr_name)
        value = _batch_attribute(self.env, name, _MISSING)
        if value is _MISSING:
            return self._from_copies(attr_name, members)
        if callable(value) and not isinstance(value, gymnasium.Space):
            return [partial(self._one_copy, attr_name, i) for i in members]
        if is_batch(value, self.num_envs):
            return [copy_tree(value[i]) for i in members]
        return [value] * len(members)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the copies: entries of a per-copy array, or for all copies the attribute of the batch.

        Raises:
            AttributeError: The batch has no such attribute.
            ValueError: A value that all copies share cannot be set for some of them.
        """
        members = list(self._get_indices(indices))
        owner = _owner(self.env, attr_name)
        if owner is None:
            if copies := getattr(self.env.unwrapped, "envs", None):
                for i in members:
                    copies[i].get_wrapper_attr(attr_name)
                    copies[i].set_wrapper_attr(attr_name, value)
                return
            raise self._missing(attr_name)
        current = getattr(owner, attr_name)
        if isinstance(current, np.ndarray | list) and is_batch(current, self.num_envs):
            changed: Any = current.copy()
            for i in members:
                changed[i] = value
            setattr(owner, attr_name, changed)
        elif set(members) == set(range(self.num_envs)):
            setattr(owner, attr_name, value)
        else:
            raise ValueError(f"{attr_name} is shared by all {self.num_envs} copies: set it for all of them")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method and return one result a copy.

        A method of the batch whose first parameter is called ``i`` is called copy by copy; any other once: a result
        with leading axis N (array, list or tuple) is dealt out, another one is repeated.

        Raises:
            AttributeError: Neither the batch nor its copies have that method.
        """
        members = list(self._get_indices(indices))
        if method_name == MASKS:
            self._watch.seen = True
        method = _batch_attribute(self.env, method_name, _MISSING)
        if method_name in _WHOLE_BATCH_ONLY or method is _MISSING:
            return self._call_copies(method_name, members, method_args, method_kwargs)
        if self._acts_on_one_copy(method_name, method):
            return [method(i, *method_args, **method_kwargs) for i in members]
        result = method(*method_args, **method_kwargs)
        if not is_batch(result, self.num_envs):
            return [result] * len(members)
        return list(result) if indices is None else [result[i] for i in members]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether each copy is wrapped in that class (a native batch: whether the batch is)."""
        members = list(self._get_indices(indices))
        layer: Any = self.env
        while isinstance(layer, VectorWrapper):
            if isinstance(layer, wrapper_class):
                return [True] * len(members)
            layer = layer.env
        copies = getattr(layer, "envs", None)
        return [copies is not None and _is_wrapped(copies[i], wrapper_class) for i in members]

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """One frame a copy (``render_mode="rgb_array"``)."""
        frames = self.env.render()
        return [None] * self.num_envs if frames is None else cast(Any, list(frames))

    def close(self) -> None:
        self.env.close()
        if self._prototype is not None:
            self._prototype.close()

    def __getattr__(self, name: str) -> Any:
        """Attributes of the native env, as whole batches; arrays are copied."""
        if name.startswith("_") or "env" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = _batch_attribute(self.env, name, _MISSING)
        if value is _MISSING:
            raise self._missing(name)
        if name == MASKS:
            self._watch.seen = True
        return value.copy() if isinstance(value, np.ndarray) else value

    def _acts_on_one_copy(self, name: str, method: Any) -> bool:
        if name not in self._per_copy:
            self._per_copy[name] = next(iter(inspect.signature(method).parameters), None) == "i"
        return self._per_copy[name]

    def _one_copy(self, name: str, i: int, *args: Any, **kwargs: Any) -> Any:
        return self.env_method(name, *args, indices=i, **kwargs)[0]

    def _from_copies(self, name: str, members: list[int]) -> list[Any]:
        """Attribute ``name`` of the single envs behind a Sync or AsyncVectorEnv."""
        base = self.env.unwrapped
        if isinstance(base, gymnasium.vector.AsyncVectorEnv):
            if callable(self._prototype_attribute(name)):
                return [partial(self._one_copy, name, i) for i in members]
            values = base.get_attr(name)
            return [values[i] for i in members]
        copies = getattr(base, "envs", None)
        if copies is None:
            raise self._missing(name)
        return [copies[i].get_wrapper_attr(name) for i in members]

    def _call_copies(self, name: str, members: list[int], args: Any, kwargs: Any) -> list[Any]:
        base = self.env.unwrapped
        if isinstance(base, gymnasium.vector.AsyncVectorEnv):
            self._prototype_attribute(name)
            if name not in (MASKS, "get_state") and len(members) < self.num_envs:
                raise ValueError(f"AsyncVectorEnv calls {name} on all copies at once: leave out indices")
            results = base.call(name, *args, **kwargs)
            return [results[i] for i in members]
        if not hasattr(base, "envs") and name in _WHOLE_BATCH_ONLY:
            raise AttributeError(f"{self.env} has no {name} of single copies: call it on the whole VecEnv")
        return [method(*args, **kwargs) for method in self._from_copies(name, members)]

    def _prototype_attribute(self, name: str) -> Any:
        """Look ``name`` up on one more single env: an AsyncVectorEnv does not survive asking for what is not there."""
        base = cast(gymnasium.vector.AsyncVectorEnv[Any, Any], self.env.unwrapped)
        if self._prototype is None:
            self._prototype = base.env_fns[0]()
        return self._prototype.get_wrapper_attr(name)

    def _missing(self, name: str) -> AttributeError:
        return AttributeError(f"{self.env} has no attribute {name!r}, and neither have its copies")


def make_vec(
    id: str | EnvSpec,
    num_envs: int = 1,
    *,
    seed: int | None = None,
    illegal: IllegalActions = "raise",
    vectorization_mode: str | None = None,
    **env_kwargs: Any,
) -> GymVecEnv:
    """Make a batch of envs as an SB3 VecEnv.

    The native batch is used where the id has one that can reset finished copies in the same step; otherwise
    (Gymnasium's own CartPole batch, ids without a batch) a SyncVectorEnv of single envs.

    Args:
        id: Gymnasium id, also in the ``orl:orl/JobShop-v0`` form that works in a fresh process.
        num_envs: Number of copies N.
        seed: Copy i starts from seed + i at the first ``reset``; None draws fresh seeds.
        illegal: Answer to illegal actions, for envs that have the keyword: ``raise`` (default), ``remap`` or ``count``.
        vectorization_mode: ``vector_entry_point``, ``sync`` or ``async``; None chooses as said above.
        **env_kwargs: Keyword arguments of the env.

    Raises:
        ValueError: ``illegal`` is not ``raise`` but the env has no such keyword, or the batch cannot be bridged.

    >>> vec = make_vec("CartPole-v1", 2, seed=0)
    >>> vec.reset().shape
    (2, 4)
    """
    spec = find_spec(id)
    native = vectorization_mode in (None, "vector_entry_point") and spec.vector_entry_point is not None
    if native and vectorization_mode is None:
        native = _takes(spec.vector_entry_point, "autoreset_mode")
    entry_point = spec.vector_entry_point if native else spec.entry_point
    if _takes(entry_point, "illegal"):
        env_kwargs["illegal"] = illegal
    elif illegal != "raise":
        raise ValueError(f"{spec.id} has no keyword illegal (got {illegal!r}): it has no action masks of its own")
    if native:
        if _takes(entry_point, "autoreset_mode"):
            env_kwargs.setdefault("autoreset_mode", AutoresetMode.SAME_STEP)
        env = gymnasium.make_vec(id, num_envs, vectorization_mode="vector_entry_point", **env_kwargs)
    else:
        env = gymnasium.make_vec(
            id,
            num_envs,
            vectorization_mode=vectorization_mode or "sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
            **env_kwargs,
        )
    bridge = GymVecEnv(env)
    if seed is not None:
        bridge.seed(seed)
    return bridge


def find_spec(id: str | EnvSpec) -> EnvSpec:
    """The spec of an id; in the form ``module:id`` the module is imported first."""
    if isinstance(id, EnvSpec):
        return id
    module, separator, name = id.rpartition(":")
    if separator:
        importlib.import_module(module)
    return gymnasium.spec(name)


def _takes(entry_point: Any, name: str) -> bool:
    """Whether an entry point (callable or import string) has the keyword ``name``."""
    if entry_point is None:
        return False
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(creator).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


# ---- attributes of wrapped batches ----------------------------------------------------------------------------------
def _owner(env: Any, name: str) -> Any:
    """The outermost layer of a (wrapped) VectorEnv that has the attribute, or None."""
    while True:
        if hasattr(env, name):
            return env
        if not isinstance(env, VectorWrapper):
            return None
        env = env.env


def _batch_attribute(env: Any, name: str, default: Any = None) -> Any:
    owner = _owner(env, name)
    return default if owner is None else getattr(owner, name)


def _is_wrapped(env: gymnasium.Env[Any, Any], wrapper_class: type[Any]) -> bool:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False


# ---- seeds and options ---------------------------------------------------------------------------------------------
def _seed_argument(seeds: list[int | None]) -> int | list[int | None] | None:
    """SB3's seed of each copy as Gymnasium's argument: one integer s where copy i has s + i."""
    first = seeds[0]
    if first is None:
        return None if all(seed is None for seed in seeds) else seeds
    return first if seeds == list(range(first, first + len(seeds))) else seeds


def _option_groups(options: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Copies with equal reset options, in order of first appearance."""
    groups: list[tuple[dict[str, Any], list[int]]] = []
    for i, option in enumerate(options):
        for known, members in groups:
            if option is known or _equal_options(option, known):
                members.append(i)
                break
        else:
            groups.append((option, [i]))
    return groups


def _equal_options(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[key] is b[key] or np.array_equal(a[key], b[key]) for key in a)
