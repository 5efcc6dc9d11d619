"""What is written to and read back from where runs are kept."""

import warnings

# Before Sacred is imported: 0.8 uses pkg_resources, and a user can do nothing about it.
warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
