"""How many operators the host sends to the device. A small network on a GPU waits for them, at some 50 microseconds each."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

# They look at a tensor in another way, ask something or make room, and start nothing.
FREE = set(
    "_unsafe_view alias as_strided detach empty empty_like expand new_empty permute promote_types select slice split "
    "split_with_sizes squeeze t transpose unflatten unsqueeze view".split()
)


class Operators(TorchDispatchMode):
    """Counts what is sent while it is entered: ``sent``, by name."""

    def __init__(self):
        super().__init__()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        name = operator.overloadpacket.__name__
        if name not in FREE and not name.startswith("_record_function"):
            self.sent[name] += 1
        return operator(*arguments, **(named or {}))
