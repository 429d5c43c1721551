"""What the tests of hub/ share."""

from small_hub import full_hub, hub, small_squad  # noqa: F401
