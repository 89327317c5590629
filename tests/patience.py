"""How long a test waits for what must come: a busy machine is slow, not wrong, so only what never comes fails.

The limit of a whole test (`timeout` in pyproject.toml) is above it, so that the wait itself says what it lacked.
"""

PATIENCE_S = 150.0
