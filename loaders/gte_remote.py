"""GTE under the first word that Alibaba's own code has ("new"); all else is that of `gte`."""

from . import gte
from .gte import read_spec as read_spec
from .names import Names

ARCHITECTURES, KEYS, IGNORED = gte.ARCHITECTURES, gte.KEYS, gte.IGNORED
SIGN = gte.SIGN.replace("gte.", "new.")
NAMES: Names = {ours: name.replace("gte.", "new.") for ours, name in gte.NAMES.items()}
