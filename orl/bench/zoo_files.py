"""Hyper-parameter files of rl-zoo3, read as they are and without running them.

rl-zoo3 keeps one YAML file an algorithm with one entry an environment id, ``atari`` and ``default``. Some values are
Python expressions in quotes (``"dict(net_arch=[64, 64], activation_fn=nn.ReLU)"``), which rl-zoo3 gives to ``eval``.
Here they are parsed: literals, ``dict(...)``, arithmetic and names of classes are understood, everything else is an
error. Objects become plain data (:func:`orl.targets.build_targets`): schedules and noise mappings with a ``target``,
classes mappings with an ``object``.

As in rl-zoo3, ``lin_x`` falls linearly from x to 0, a missing id takes the entry ``atari`` or ``default``, and
VecNormalize discounts with the algorithm's ``gamma``. Keys without a counterpart (``callback``, ``vec_env_wrapper``,
``monitor_kwargs`` and those of HER before Stable-Baselines3 1.1) are errors.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orl.bench import yaml_lines
from orl.bench.yaml_lines import Document, KeyPath
from orl.common.errors import InputError, UnknownNameError
from orl.targets import build_targets

SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")
EXPRESSIONS = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs")
"""Hyper-parameters whose texts are Python expressions."""
_NO_COUNTERPART = {
    "callback": "rl-zoo3's own callbacks have no counterpart here",
    "vec_env_wrapper": "wrappers of the vectorised env have no counterpart here",
    "monitor_kwargs": "settings of the Monitor wrapper have no counterpart here",
} | dict.fromkeys(
    ("model_class", "n_sampled_goal", "goal_selection_strategy", "online_sampling", "max_episode_length"),
    "HER as it was before Stable-Baselines3 1.1; today it is replay_buffer_class: HerReplayBuffer",
)
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\.(?:[eE][-+]?[0-9]+)?"
_LINEAR = re.compile(rf"lin_({_NUMBER})\Z")
_NOISE = {
    "normal": "stable_baselines3.common.noise:NormalActionNoise",
    "ornstein-uhlenbeck": "stable_baselines3.common.noise:OrnsteinUhlenbeckActionNoise",
}
_MODULES = {"nn": "torch.nn", "th": "torch", "torch": "torch", "optim": "torch.optim", "sb3": "stable_baselines3"}
_CLASSES = {
    "HerReplayBuffer": "stable_baselines3:HerReplayBuffer",
    "RMSpropTFLike": "stable_baselines3.common.sb2_compat.rmsprop_tf_like:RMSpropTFLike",
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_LONGEST_EXPRESSION = 10_000


@dataclass(frozen=True)
class ZooEntry:
    """An entry of a hyper-parameter file.

    Attributes:
        fields: See :func:`read_zoo_file`.
        document: The file, for errors with lines.
        section: Key of the entry: the id, ``atari`` or ``default``.
    """

    fields: dict[str, Any]
    document: Document
    section: str

    def error(self, key: str, problem: str, *, value: object = None, expected: str | None = None) -> InputError:
        """An error that names the file, the line of ``key`` in the entry, and the key."""
        return self.document.error((self.section, key), problem, value=value, expected=expected)


def read_zoo_file(path: Path, env_id: str, *, n_actions: int | None = None) -> dict[str, Any]:
    """The entry of an environment in a hyper-parameter file of rl-zoo3, as plain data.

    Args:
        path: The file.
        env_id: Gymnasium id.
        n_actions: Length of the action vector, for entries with action noise; the env is made to see it if not given.

    Returns:
        Those of the keys ``policy`` (str), ``n_envs`` (int), ``normalize`` (dict or None), ``frame_stack`` (int),
        ``wrappers`` (list of dicts with a ``target``), ``hyper`` (dict), ``budget`` (``{"steps": int}``) and
        ``env_kwargs`` (dict) that the entry states; ``hyper`` is always there.

    Raises:
        InputError: not readable, no such entry, or something that is not understood, with file, line and key.
    """
    return read_zoo_entry(path, env_id, lambda: action_size(env_id, {}) if n_actions is None else n_actions).fields


def read_zoo_entry(path: Path, env_id: str, n_actions: Callable[[], int]) -> ZooEntry:
    """As :func:`read_zoo_file`, with lines; ``n_actions`` is called only for entries with action noise."""
    document = yaml_lines.read(path, expected="a hyper-parameter file of rl-zoo3")
    for error in document.errors:
        raise error
    section = _section(document, env_id)
    entry = ZooEntry({}, document, section)
    values = document.data[section]
    if not isinstance(values, dict):
        raise document.error((section,), "wrong type", value=values, expected="a mapping")
    try:
        entry.fields.update(_fields(values, n_actions))
    except InputError as error:
        key, _, rest = str(error.field).partition(".")
        where: KeyPath = (section, key, *rest.split(".")) if rest else (section, key)
        raise document.error(where, error.problem, value=error.value, expected=error.expected) from error
    return entry


def _section(document: Document, env_id: str) -> str:
    if not isinstance(document.data, dict):
        raise document.error((), "not a hyper-parameter file", value=document.data, expected="one entry an environment")
    plain = env_id.removeprefix("orl:")
    for name in (plain, plain.rpartition(":")[2], "atari" if _is_atari(plain) else "default", "default"):
        if name in document.data:
            return str(name)
    expected = UnknownNameError("entry", plain, document.data).expected
    raise document.error((), "no entry for this environment", value=plain, expected=expected)


def _is_atari(env_id: str) -> bool:
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    return "AtariEnv" in str(spec.entry_point) if spec else env_id.startswith("ALE/") or "NoFrameskip" in env_id


def _fields(values: dict[str, Any], n_actions: Callable[[], int]) -> dict[str, Any]:
    rest = dict(values)
    fields: dict[str, Any] = {}
    for key, reason in _NO_COUNTERPART.items():
        if rest.pop(key, None):
            raise InputError(f"cannot be used: {reason}", field=key, value=values[key])
    if rest.get("n_timesteps") is not None:
        fields["budget"] = {"steps": _whole("n_timesteps", rest["n_timesteps"])}
    for key in ("n_envs", "frame_stack"):
        if rest.get(key) is not None:
            fields[key] = _whole(key, rest[key])
    if rest.get("policy") is not None:
        fields["policy"] = import_string(_text("policy", rest["policy"]))
    if "normalize" in rest:
        fields["normalize"] = _normalize(rest["normalize"])
        if fields["normalize"] and "gamma" in rest:
            fields["normalize"].pop("gamma", None)  # the algorithm's counts, as in rl-zoo3
    if rest.get("env_wrapper") is not None:
        fields["wrappers"] = wrappers(rest["env_wrapper"], "env_wrapper")
    if rest.get("env_kwargs") is not None:
        fields["env_kwargs"] = _mapping("env_kwargs", expression(rest["env_kwargs"], "env_kwargs"))
    noise = _noise(rest, n_actions)
    for key in ("n_timesteps", "n_envs", "frame_stack", "policy", "normalize", "env_wrapper", "env_kwargs"):
        rest.pop(key, None)
    fields["hyper"] = plain_hyper(rest) | noise
    return fields


def plain_hyper(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters with rl-zoo3's notations replaced by plain data with targets.

    >>> plain_hyper({"learning_rate": "lin_3e-4", "policy_kwargs": "dict(net_arch=[64] * 2)"})["policy_kwargs"]
    {'net_arch': [64, 64]}

    Raises:
        InputError: a schedule or an expression that is not understood; ``field`` is the key.
    """
    plain = dict(hyper)
    for key in SCHEDULES:
        if isinstance(plain.get(key), str):
            plain[key] = _schedule(key, plain[key])
    for key in EXPRESSIONS:
        if isinstance(plain.get(key), str):
            plain[key] = expression(plain[key], key)
    if isinstance(plain.get("train_freq"), list):
        plain["train_freq"] = _train_frequency(plain["train_freq"])
    return plain


def _schedule(key: str, text: str) -> dict[str, Any]:
    match = _LINEAR.match(text.strip())
    if match is None:
        expected = "a number, or lin_ and a number, such as lin_3e-4"
        raise InputError("unknown schedule", field=key, value=text, expected=expected)
    target = "stable_baselines3.common.utils:LinearSchedule"
    return {"target": target, "start": float(match[1]), "end": 0.0, "end_fraction": 1.0}


def _train_frequency(value: list[Any]) -> dict[str, Any]:
    """SB3 wants a tuple, which plain data cannot say; TrainFreq is what it makes of the tuple."""
    module = "stable_baselines3.common.type_aliases"
    if len(value) != 2 or type(value[0]) is not int or value[1] not in ("step", "episode"):
        raise InputError("wrong type", field="train_freq", value=value, expected="a number, or [number, step|episode]")
    unit = {"target": f"{module}:TrainFrequencyUnit", "value": value[1]}
    return {"target": f"{module}:TrainFreq", "frequency": value[0], "unit": unit}


def _noise(rest: dict[str, Any], n_actions: Callable[[], int]) -> dict[str, Any]:
    kind, std = rest.pop("noise_type", None), rest.pop("noise_std", None)
    if kind is None:
        return {}
    name = next((name for name in _NOISE if name in _text("noise_type", kind)), None)
    if name is None:
        raise InputError("unknown noise", field="noise_type", value=kind, expected=f"one of {list(_NOISE)}")
    if std is None:
        raise InputError("the key 'noise_std' is missing beside it", field="noise_type", value=kind)
    if isinstance(std, bool) or not isinstance(std, int | float):
        raise InputError("wrong type", field="noise_std", value=std, expected="a number")
    try:
        n = n_actions()
    except InputError as error:
        raise InputError(error.problem, field="noise_type", value=error.value, expected=error.expected) from error
    mean = {"target": "numpy:zeros", "shape": n}
    return {
        "action_noise": {
            "target": _NOISE[name],
            "mean": mean,
            "sigma": {"target": "numpy:full", "shape": n, "fill_value": float(std)},
        }
    }


def action_size(env_id: str, env_kwargs: Mapping[str, Any]) -> int:
    """Length of the action vector of an environment, which is made to see it.

    Args:
        env_id: Gymnasium id.
        env_kwargs: Plain data with targets.

    Raises:
        InputError: the environment cannot be made, or its actions are no vectors.
    """
    import gymnasium

    try:
        env = gymnasium.make(env_id, **build_targets(env_kwargs))
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        problem = " ".join(f"the environment cannot be made to see its actions: {error}".split())
        raise InputError(problem, field="noise_type", value=env_id) from error
    space = env.action_space
    env.close()
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise InputError("noise needs actions that are vectors", field="noise_type", value=space, expected="a flat Box")
    return int(space.shape[0])


def _normalize(value: Any) -> dict[str, Any] | None:
    value = expression(value, "normalize")
    if value is None or isinstance(value, bool):
        return {} if value else None
    return _mapping("normalize", value)


def wrappers(value: Any, field: str = "wrappers") -> list[dict[str, Any]]:
    """Wrappers as mappings with a ``target``, from names, ``{name: keyword arguments}``, or such mappings; or a list.

    >>> wrappers(["gymnasium.wrappers.FlattenObservation", {"a.wrappers.Skip": {"skip": 2}}])
    [{'target': 'gymnasium.wrappers:FlattenObservation'}, {'target': 'a.wrappers:Skip', 'skip': 2}]

    Raises:
        InputError: something else.
    """
    return [_wrapper(item, field) for item in (value if isinstance(value, list) else [value])]


def _wrapper(item: Any, field: str) -> dict[str, Any]:
    if isinstance(item, str) and re.search("[.:]", item):
        return {"target": import_string(item)}
    if isinstance(item, dict) and isinstance(item.get("target"), str):
        return {**item, "target": import_string(item["target"])}
    if isinstance(item, dict) and len(item) == 1:
        [(name, kwargs)] = item.items()
        if re.search("[.:]", name) and (kwargs is None or isinstance(kwargs, dict)):
            return {"target": import_string(name), **(kwargs or {})}
    expected = "module.Class, or a mapping of it to keyword arguments"
    raise InputError("not a wrapper", field=field, value=item, expected=expected)


def import_string(name: str) -> str:
    """``module:attribute`` from rl-zoo3's ``module.attribute``; a name without a dot stays as it is.

    >>> import_string("sb3_contrib.common.wrappers.TimeFeatureWrapper"), import_string("MlpPolicy")
    ('sb3_contrib.common.wrappers:TimeFeatureWrapper', 'MlpPolicy')
    """
    module, dot, attribute = name.rpartition(".")
    return f"{module}:{attribute}" if dot and ":" not in name else name


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise InputError("wrong type", field=key, value=value, expected="a whole number >= 1")
    return int(value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError("wrong type", field=key, value=value, expected="a text")
    return value.strip()


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("wrong type", field=key, value=value, expected="a mapping")
    return dict(value)


# ---- expressions ---------------------------------------------------------------------------------------------------
def expression(value: Any, field: str) -> Any:
    """Plain data out of a Python expression in a text; anything but a text stays as it is.

    >>> expression("dict(log_std_init=-2, net_arch=dict(pi=[2**8, 256]), activation_fn=nn.ReLU)", "policy_kwargs")
    {'log_std_init': -2, 'net_arch': {'pi': [256, 256]}, 'activation_fn': {'object': 'torch.nn:ReLU'}}

    Raises:
        InputError: not an expression of literals, ``dict(...)``, arithmetic and names of classes.
    """
    if not isinstance(value, str):
        return value
    try:
        if len(value) > _LONGEST_EXPRESSION:
            raise ValueError(f"longer than {_LONGEST_EXPRESSION} characters")
        return _evaluate(ast.parse(value.strip(), mode="eval").body)
    except SyntaxError as error:
        raise InputError("not a Python expression", field=field, value=value) from error
    except (ValueError, ArithmeticError, TypeError, RecursionError, MemoryError) as error:
        expected = "literals, dict(...), arithmetic, or names of classes such as nn.ReLU"
        raise InputError(f"not understood: {error}", field=field, value=value, expected=expected) from error


def _evaluate(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.List() | ast.Tuple():
            return [_evaluate(item) for item in node.elts]
        case ast.Dict():
            return {_key(key): _evaluate(item) for key, item in zip(node.keys, node.values, strict=True)}
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return {_key(keyword.arg): _evaluate(keyword.value) for keyword in node.keywords}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            number = _number(_evaluate(node.operand))
            return -number if isinstance(node.op, ast.USub) else number
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            return _calculate(node.op, _evaluate(node.left), _evaluate(node.right))
        case ast.Name() | ast.Attribute():
            return {"object": _class(ast.unparse(node))}
    raise ValueError(ast.unparse(node)[:40])


def _key(key: ast.expr | str | None) -> str:
    name = _evaluate(key) if isinstance(key, ast.expr) else key
    if not isinstance(name, str):
        raise ValueError("a key that is no text")
    return name


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("arithmetic on something that is no number")
    return value


def _calculate(sign: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(sign, ast.Mult) and isinstance(left, list) and isinstance(right, int) and len(left) * right <= 1000:
        return left * right
    left, right = _number(left), _number(right)
    if isinstance(sign, ast.Pow) and (abs(right) > 64 or abs(left) > 1e6):
        raise ValueError("a power too large")
    result = _ARITHMETIC[type(sign)](left, right)
    if isinstance(result, complex) or abs(result) > 1e300:
        raise ValueError("a number too large")
    return result


def _class(name: str) -> str:
    root, _, rest = name.partition(".")
    if not rest:
        if name not in _CLASSES:
            raise ValueError(f"unknown name {name}")
        return _CLASSES[name]
    if root not in _MODULES:
        raise ValueError(f"unknown module {root}")
    module, _, attribute = rest.rpartition(".")
    return f"{_MODULES[root]}{'.' if module else ''}{module}:{attribute}"
