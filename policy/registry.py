"""Make a policy from the name of its network."""

import inspect
import logging
from typing import Any

import gymnasium as gym

from policy.base import METHODS, Policy, PolicyError
from utils.names import did_you_mean
from utils.resolve import resolve

log = logging.getLogger(__name__)

BUILT_IN = {
    "feedforward": "policy.feedforward:FeedForward",
    "elman": "policy.elman:Elman",
    "lstm": "policy.lstm:LSTM",
    "nature": "policy.convolutional:Nature",
    "ibm": "policy.convolutional:IBM",
    "cshenton": "policy.convolutional:CShenton",
}
PICTURE_NETWORKS = ("nature", "ibm", "cshenton")  # whose sizes and activations are their own
FULL_NAMES = [address.replace(":", ".") for address in BUILT_IN.values()]
# Names of an earlier system, found in old configs.
RETIRED = {
    "policy.ff_network.FFNetwork": "feedforward",
    "policy.elman_network.ElmanNetwork": "elman",
    "policy.lstm_network.LSTMNetwork": "lstm",
}


def make_policy(
    network: str, observation_space: gym.Space, action_space: gym.Space, **kwargs: Any
) -> Policy:
    """Make the policy that `network` names.

    Args:
        network: one of `BUILT_IN`, such as "feedforward", or the address "package.module:Name" of a
            policy class or of a torch.nn.Module class.
        observation_space: what the policy reads.
        action_space: what it drives.
        kwargs: settings of the policy, or arguments of the module.
    Raises:
        PolicyError: in one line, if there is no such network or it cannot be made so.
    """
    found = _find(network)
    if all(hasattr(found, name) for name in METHODS):
        _check_settings(network, found, kwargs)
        return found(observation_space, action_space, **kwargs)
    from torch import nn  # only now: it takes two seconds

    from policy.torch_module import TorchModule

    if isinstance(found, type) and issubclass(found, nn.Module):
        return TorchModule(observation_space, action_space, network=found, **kwargs)
    missing = [name for name in METHODS if not hasattr(found, name)]
    raise PolicyError(
        f"network {network!r} is no torch.nn.Module class, and to be a policy class it lacks "
        f"{', '.join(missing)}"
    )


def is_built_in(network: str) -> bool:
    """True for a network of ours, which takes `settings_of(network)` and nothing else."""
    return network in BUILT_IN or network in RETIRED or network.replace(":", ".") in FULL_NAMES


def settings_of(network: str) -> tuple[str, ...]:
    """The settings that a network of ours takes."""
    pictures = [BUILT_IN[name].replace(":", ".") for name in PICTURE_NETWORKS]
    if network in PICTURE_NETWORKS or network.replace(":", ".") in pictures:
        return ()
    return ("hidden_sizes", "hidden_activation", "output_activation")


def _find(network: str) -> Any:
    if network in RETIRED:
        log.warning("network=%s is now called %r", network, RETIRED[network])
        network = RETIRED[network]
    address = BUILT_IN.get(network, network)
    if "." not in address and ":" not in address:
        hint = did_you_mean(network, BUILT_IN)
        known = ", ".join(BUILT_IN)
        raise PolicyError(f"no network {network!r}.{hint} Known: {known}, or package.module:Name")
    try:
        return resolve(address)
    except ValueError as error:
        near = did_you_mean(network.replace(":", "."), FULL_NAMES)
        raise PolicyError(f"network {error}{near}") from error


def _check_settings(network: str, policy: Any, settings: dict[str, Any]) -> None:
    parameters = inspect.signature(policy).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known)
            raise PolicyError(
                f"network {network!r} has no setting {name!r}.{hint} Known: {', '.join(known)}"
            )
