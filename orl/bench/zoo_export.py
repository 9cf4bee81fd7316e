"""Hyper-parameters as the YAML that rl-zoo3 reads (``--conf-file``), and sweep files too.

What rl-zoo3 has a spelling of its own for is written in it: torch classes in ``policy_kwargs`` as a Python expression,
Gaussian noise as ``noise_type`` and ``noise_std``, classes of policies with dots. Other objects (``target`` mappings in
``env_kwargs``, say) stay as they are: sweeps build them, rl-zoo3 cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from orl.common.atomic import write_text

TORCH = "torch.nn:"
NORMAL_NOISE = "stable_baselines3.common.noise:NormalActionNoise"


def write_zoo_file(path: Path, env_id: str, entry: Mapping[str, Any], *, heading: str = "") -> None:
    """Write the entry of one environment, whole or not at all.

    Args:
        path: The file.
        env_id: Gymnasium id as rl-zoo3 is given it.
        entry: ``n_timesteps, n_envs, policy, normalize, env_kwargs`` and hyper-parameters, plain data; None and empty
            mappings are left out.
        heading: A comment for the first line.
    """
    text = yaml.safe_dump({env_id: zoo_entry(entry)}, sort_keys=False, allow_unicode=True, width=120)
    write_text(path, (f"# {' '.join(heading.split())}\n" if heading else "") + text)


def zoo_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry in rl-zoo3's spelling.

    >>> zoo_entry({"policy": "my.module:Net", "policy_kwargs": {"activation_fn": {"object": "torch.nn:Tanh"}}})
    {'policy': 'my.module.Net', 'policy_kwargs': 'dict(activation_fn=nn.Tanh)'}
    """
    out: dict[str, Any] = {}
    for name, value in entry.items():
        if value is None or (name in ("env_kwargs", "policy_kwargs") and not value):
            continue
        if name == "policy":
            out[name] = "orl.policies.set_policy.SetPolicy" if value == "set" else str(value).replace(":", ".")
        elif name == "policy_kwargs" and _only_torch_objects(value):
            out[name] = _expression(value)
        elif name == "normalize" and not value:
            out[name] = True
        elif name == "action_noise" and _is_plain_noise(value):
            out |= {"noise_type": "normal", "noise_std": value["sigma"][0]}
        else:
            out[name] = value
    return out


def _is_plain_noise(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.get("target") == NORMAL_NOISE
        and not any(value["mean"])
        and len(set(value["sigma"])) == 1
    )


def _objects(value: Any) -> list[str]:
    """The imported objects in plain data; a target counts as one."""
    if isinstance(value, Mapping):
        own = [str(value[key]) for key in ("object", "target") if key in value]
        return own + [name for item in value.values() for name in _objects(item)]
    return [name for item in value for name in _objects(item)] if isinstance(value, list) else []


def _only_torch_objects(value: Any) -> bool:
    objects = _objects(value)
    return bool(objects) and all(name.startswith(TORCH) for name in objects)


def _expression(value: Any) -> str:
    """Plain data as the Python expression that rl-zoo3 evaluates, with ``nn`` for ``torch.nn``."""
    if isinstance(value, Mapping):
        if set(value) == {"object"}:
            return "nn." + str(value["object"]).removeprefix(TORCH)
        return f"dict({', '.join(f'{key}={_expression(item)}' for key, item in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_expression, value))}]"
    return repr(value)
