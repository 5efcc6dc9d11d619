"""What is optimized, said so that any machine can do it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from env.actions import decoder
from env.engines import VectorEngine, make_engine, resolve_engine, versions
from env.ids import current_id
from evolution.settings import whole_number
from policy.base import Policy, checked_hidden_sizes
from policy.registry import is_built_in, settings_of
from policy.registry import make_policy as policy_of


class ProblemError(ValueError):
    """A problem that this process cannot evaluate, with the reason."""


@dataclass(frozen=True)
class Problem:
    """All that a worker must know to turn (theta, environment seed) into a return.

    Evaluation is a pure function of these three, down to the last bit on like machines: the
    versions of the packages whose arithmetic decides the numbers are part of the problem.
    """

    env: str  # a Gymnasium id of today
    engine: str  # gymnasium, envpool, batched or atari: never auto
    network: str
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    action_scaling: str = "clip"
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    max_steps: int | None = None  # cut an episode off after exactly so many steps
    versions: dict[str, str] = field(default_factory=dict)

    def build(self) -> tuple[VectorEngine, Policy, Callable[[np.ndarray], np.ndarray]]:
        """The engine, the policy and the function from its outputs to the engine's actions.

        Raises:
            ProblemError: this process would not get the same numbers.
            ValueError: a name that is not known.
        """
        if (here := self.versions_here()) != self.versions:
            raise ProblemError(
                f"this worker has {_listed(here)} but the run needs {_listed(self.versions)}"
            )
        engine = make_engine(self.engine, self.env, self.env_kwargs)
        policy = policy_of(
            self.network, engine.observation_space, engine.action_space, **self.policy_kwargs
        )
        return engine, policy, decoder(engine.action_space, self.action_scaling)

    def make_policy(self) -> Policy:
        """The policy alone, for a process that evaluates nothing; needs no EnvPool."""
        name = "gymnasium" if self.engine == "envpool" else self.engine
        engine = make_engine(name, self.env, self.env_kwargs)
        decoder(engine.action_space, self.action_scaling)  # refuses what it cannot decode
        spaces = engine.observation_space, engine.action_space
        engine.close()
        return policy_of(self.network, *spaces, **self.policy_kwargs)

    def versions_here(self) -> dict[str, str]:
        """The packages of this process that decide the numbers."""
        found = {"numpy": np.__version__, **versions(self.engine, self.env)}
        return dict(sorted(found.items()))

    def described(self) -> dict[str, Any]:
        """For the record of a run: what was used."""
        return {"engine": self.engine, "versions": self.versions, "problem": self.fingerprint()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, message: dict[str, Any]) -> "Problem":
        """Rebuild what ``to_json`` wrote.

        Raises:
            ProblemError: another set of fields than this program's.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(message) - known:
            raise ProblemError(f"the problem has {sorted(unknown)}: this program is older than it")
        if lacking := known - set(message):
            raise ProblemError(f"the problem lacks {sorted(lacking)}: its head is the older one")
        return cls(**message)

    def fingerprint(self) -> str:
        """Equal for equal problems: 16 hex digits."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def problem_of(config: Mapping[str, Any]) -> Problem:
    """The problem that a config describes."""
    network, own = config["network"], config["network_kwargs"]
    if not isinstance(network, str):
        raise ValueError(f"network={network!r}: must be a name, such as feedforward")
    if not isinstance(own, Mapping):
        raise ValueError(f"network_kwargs={own!r}: must be a dict, such as {{'width': 16}}")
    env_kwargs = config.get("env_kwargs", {})  # runs of earlier versions have none
    if not isinstance(env_kwargs, Mapping):
        raise ValueError(f"env_kwargs={env_kwargs!r}: must be a dict, such as {{'gravity': -5}}")
    own = dict(own)
    if is_built_in(network):
        if own:
            raise ValueError(f"network_kwargs={own}: network {network!r} takes none")
        own = {name: config[name] for name in settings_of(network)}
        if "hidden_sizes" in own:
            own["hidden_sizes"] = list(checked_hidden_sizes(config["hidden_sizes"]))
    elif not config["force_cpu"] and _has_cuda():
        own["device"] = "cuda"
    return choose_problem(
        env_name=config["env_name"],
        env_kwargs=dict(env_kwargs),
        engine=config["engine"],
        network=network,
        policy_kwargs=own,
        action_scaling=config["action_scaling"],
        max_steps=config["max_ep_length"],
    )


def choose_problem(
    *,
    env_name: str,
    env_kwargs: dict[str, Any] | None = None,
    engine: str = "auto",
    network: str = "feedforward",
    policy_kwargs: dict[str, Any] | None = None,
    action_scaling: str = "clip",
    max_steps: int | None = None,
) -> Problem:
    """The problem that a config describes: retired ids mapped, the engine chosen, versions noted.

    Raises:
        ValueError: a name that is not known, with near matches; a cut-off below one step.
    """
    if max_steps is not None:
        whole_number("max_ep_length", max_steps, 1)
    env_id = current_id(env_name)
    env_kwargs = env_kwargs or {}
    problem = Problem(
        env=env_id,
        engine=resolve_engine(engine, env_id, env_kwargs),
        network=network,
        policy_kwargs=policy_kwargs or {},
        action_scaling=action_scaling,
        env_kwargs=env_kwargs,
        max_steps=max_steps,
    )
    return replace(problem, versions=problem.versions_here())


def _listed(packages: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items()) or "nothing"


def _has_cuda() -> bool:
    import torch  # only for modules of the user's, which need it anyway

    return torch.cuda.is_available()
