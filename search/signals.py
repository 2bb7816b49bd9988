"""What the catalogue tells other apps."""

from django.dispatch import Signal

image_states_changed = Signal()
"""Sent by `curation` inside the transaction that removes or restores images: `ids` (int64, ascending) and `state`,
the state they have now. A receiver keeps its own rows true in the same transaction: removed images need no
work done, restored ones need the work they still lack."""
