"""JSON that somebody else wrote."""

import json
from typing import Any


def loads(text: str | bytes) -> Any:
    """What a JSON text holds; as ``json.loads``, where NaN and Infinity are numbers too.

    Raises:
        ValueError: it is not JSON (json.JSONDecodeError, which has line and column), or holds what Python does not read; one
            line says why.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise ValueError("brackets in it are nested too deeply") from None
    except ValueError:  # Python's guard against numbers whose conversion would take minutes
        raise ValueError("a number in it has more than 4,300 digits") from None
