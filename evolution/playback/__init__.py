"""Playing with what a run has learnt: which policy, which episodes, in a window or for a film."""
