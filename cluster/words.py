"""Names for clusters that nobody has named: two words, such as quiet-otter."""

import secrets
from collections.abc import Collection

FIRST = (
    *("amber", "bold", "brisk", "calm", "clear", "cosy", "crisp", "early", "fair", "fond"),
    *("gentle", "glad", "golden", "hardy", "keen", "kind", "light", "lively", "lucky", "mellow"),
    *("merry", "mild", "neat", "nimble", "noble", "plain", "proud", "quick", "quiet", "ready"),
    *("rosy", "round", "sharp", "silver", "smooth", "sober", "steady", "sunny", "swift", "warm"),
)
SECOND = (
    *("badger", "beech", "birch", "brook", "cedar", "cliff", "cloud", "crane", "dune", "elm"),
    *("falcon", "fern", "finch", "fjord", "grove", "hare", "heron", "island", "lake", "lark"),
    *("lynx", "maple", "marsh", "meadow", "moss", "oak", "otter", "pine", "plover", "reed"),
    *("ridge", "river", "robin", "shore", "spruce", "stone", "swan", "thicket", "vale", "willow"),
)


def fresh_name(taken: Collection[str]) -> str:
    """Two words that no cluster has for its name; the third word is drawn if all are taken."""
    free = [f"{a}-{b}" for a in FIRST for b in SECOND if f"{a}-{b}" not in taken]
    return secrets.choice(free) if free else f"{fresh_name(())}-{secrets.token_hex(3)}"
