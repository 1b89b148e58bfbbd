"""Whether the held-out text is large enough."""

FEW_SELECTED = 2000  # tokens that the generator is asked for; with fewer, an accuracy of .5 is known to ±.02 at best


def small(selected: int | None, has_files: bool) -> str | None:
    """The held-out text is too small to see what an adaptation changes: fewer than ``FEW_SELECTED`` selected tokens.

    Args:
        has_files: it was given as data.eval_files, not taken from the training text.
    """
    if selected is None or selected >= FEW_SELECTED:
        return None
    more = "give more of it (data.eval_files)" if has_files else "raise data.eval_fraction, or give data.eval_files"
    return (
        f"the held-out text is small: only {selected:,} tokens are judged by the generator; {more}, and raise eval.batches "
        "where that is the limit"
    )
