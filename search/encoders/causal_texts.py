"""Texts through a causal text tower no further than they reach.

CLIP's text tower (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021)
attends to earlier tokens only and answers with what it makes of the end-of-text token. What stands behind it is
padding up to the context length, 77 tokens, and changes nothing: a query of six words costs a tenth without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask", "text_projection")


def shortened(model: Any, torch: Any) -> Callable[[Any], Any] | None:
    """`model.encode_text` for such a tower: tokens (n, context length) -> features (n, dim), neither normalised.

    None where the model's tower is another (bi-directional, pooled elsewhere, with a class token): use its own.
    """
    tower = getattr(model, "text", model)
    if any(not hasattr(tower, name) for name in _PARTS) or getattr(tower, "cls_emb", None) is not None:
        return None
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", ""))
    mask = tower.attn_mask
    length = len(tower.positional_embedding)
    if pool != "argmax" or getattr(tower, "use_pad_mask", False) or mask is None or mask.shape != (length, length):
        return None
    if not bool(torch.isneginf(mask.float()[torch.ones_like(mask, dtype=torch.bool).triu(1)]).all()):
        return None

    def encode(tokens: Any) -> Any:
        ends = tokens.argmax(dim=-1)  # the end-of-text token has the largest number
        reach = int(ends.max()) + 1
        kind = tower.transformer.get_cast_dtype()
        rows = tower.token_embedding(tokens[:, :reach]).to(kind) + tower.positional_embedding[:reach].to(kind)
        rows = tower.ln_final(tower.transformer(rows, attn_mask=mask[:reach, :reach]))
        pooled = rows[torch.arange(len(rows), device=rows.device), ends]
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection

    return encode
