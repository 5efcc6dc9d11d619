"""Named configs that play Atari games; see `evolution.configs` for how Sacred reads them."""


def atari():
    """ga-dist's settings for any game: with atari env_name=ALE/Seaquest-v5."""
    env_name = "ALE/Frostbite-v5"
    network = "nature"
    max_ep_length = 5000
    pop_size = 700  # with the elites' episodes 1,000 in all
    n_parents = 20
    champions = 1
    n_elite_candidates = 10
    n_evals = 30
    sigma = 0.002
    n_tsteps = 250_000_000
    final_episodes = 200
    noise_size = 250_000_000


def frostbite():
    """Frostbite, Such et al. 2018 with a table of noise for laptops."""
    env_name = "ALE/Frostbite-v5"
    network = "nature"
    max_ep_length = 5000
    champions = 1
    sigma = 0.002
    noise_size = 25_000_000


def venture():
    """Venture, likewise."""
    env_name = "ALE/Venture-v5"
    network = "nature"
    max_ep_length = 5000
    champions = 1
    sigma = 0.002
    noise_size = 25_000_000


def skiing():
    """Skiing, likewise."""
    env_name = "ALE/Skiing-v5"
    network = "nature"
    max_ep_length = 5000
    champions = 1
    sigma = 0.002
    noise_size = 25_000_000


def space_invaders():
    """IBM's: colour pictures, over with the first lost life; elites have to earn their place."""
    env_name = "ALE/SpaceInvaders-v5"
    env_kwargs = {"picture": "colour", "life_loss_ends": True}
    network = "ibm"
    pop_size = 1000
    n_parents = 20
    champions = 3
    n_evals = 10
    sigma = 0.005
    num_generations = 350


ATARI = (atari, frostbite, venture, skiing, space_invaders)
