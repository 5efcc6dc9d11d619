"""Lists of Atari games by their ids, for suites; `env.atari` says how they are played."""

_NAMES = """
    Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling
    Boxing Breakout Centipede ChopperCommand CrazyClimber DemonAttack DoubleDunk Enduro FishingDerby
    Freeway Frostbite Gopher Gravitar Hero IceHockey Jamesbond Kangaroo Krull KungFuMaster
    MontezumaRevenge MsPacman NameThisGame Phoenix Pitfall Pong PrivateEye Qbert Riverraid
    RoadRunner Robotank Seaquest Skiing Solaris SpaceInvaders StarGunner Tennis TimePilot Tutankham
    UpNDown Venture VideoPinball WizardOfWor YarsRevenge Zaxxon
"""
_SHOWN = """
    Frostbite Skiing Venture Kangaroo Gravitar Asteroids Zaxxon Amidar Assault Asterix Seaquest
    Enduro Atlantis
"""


def _ids(names: str) -> tuple[str, ...]:
    return tuple(f"ALE/{name}-v5" for name in names.split())


# The games on which papers compare: those of ALE's 57 that are not Defender and Surround.
ALL_55 = _ids(_NAMES)
# Those that ga-dist shows, most of them from Such et al. 2018, table 1.
SHOWN_13 = _ids(_SHOWN)
