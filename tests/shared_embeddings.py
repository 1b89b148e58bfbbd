"""Whether the embeddings of two networks are still shared as ``sharing.share`` left them."""

from transformers import ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.model.corrective import CorrectiveHead
from electra_accel.model.sharing import TABLES, DeltaEmbedding


def assert_shared(
    generator: ElectraForMaskedLM,
    discriminator: ElectraForPreTraining,
    how: str,
    corrector: CorrectiveHead | None = None,
) -> None:
    """Raises RuntimeError, naming what came apart, unless everything is shared as ``share`` and the head left it."""
    mine, theirs = generator.electra.embeddings, discriminator.electra.embeddings
    shared = {"generator_lm_head.weight": generator.generator_lm_head.weight is mine.word_embeddings.weight}
    if how == "tied":
        own = dict(mine.named_parameters())
        shared |= {name: parameter is own.get(name) for name, parameter in theirs.named_parameters()}
    elif how == "gdes":
        tables = {name: getattr(theirs, name) for name in TABLES}
        shared |= {
            name: isinstance(table, DeltaEmbedding) and table.base is getattr(mine, name)
            for name, table in tables.items()
        }
    if corrector is not None:
        head, table = corrector.lm_head, theirs.word_embeddings
        parts = dict(base=table.base.weight, delta=table.delta) if how == "gdes" else dict(weight=table.weight)
        shared |= {f"corrector.lm_head.{name}": getattr(head, name) is part for name, part in parts.items()}
    if apart := [name for name, holds in shared.items() if not holds]:
        raise RuntimeError("generator and discriminator no longer share " + ", ".join(apart))
