"""The sizes of a pair that is trained from scratch, each in one place. Imports no torch: the options read it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What is recommended for a start; ``sequences`` times ``length`` are the token slots of a global step."""

    learning_rate: float  # of AdamW alone
    mask_prob: float
    sequences: int
    length: int
    warmup_steps: int | None = 10_000  # None: a share of the steps
    epochs: float | None = None
    optimizer: str = "adamw"
    discriminator_weight: float = 50.0
    corrective_weight: float = 0.0
    sharing: str = "tied"

    @property
    def batch_tokens(self) -> int:
        return self.sequences * self.length


@dataclass(frozen=True)
class Size:
    """Shape of the discriminator, and how wide the generator is beside it by default (both have the same depth)."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    embedding: int
    generator_width: float
    settings: Settings


# Of what was tried: docs/learning.md.
_BEST = dict(optimizer="muon", discriminator_weight=10.0, corrective_weight=10.0, sharing="none")
# Clark et al., ELECTRA (ICLR 2020), tables 6 and 7; "tiny" and the settings for a given pair are ours.
SIZES = {
    "tiny": Size(4, 128, 4, 512, 128, 1 / 4, Settings(1e-3, 0.15, 64, 128, warmup_steps=100, **_BEST)),
    "small": Size(12, 256, 4, 1024, 128, 1 / 4, Settings(5e-4, 0.15, 128, 128)),
    "base": Size(12, 768, 12, 3072, 768, 1 / 3, Settings(2e-4, 0.15, 256, 512)),
    "large": Size(24, 1024, 16, 4096, 1024, 1 / 4, Settings(2e-4, 0.25, 2048, 512)),
}
FROM_PAIR = Settings(5e-5, 0.15, 64, 128, warmup_steps=None, epochs=3.0)
