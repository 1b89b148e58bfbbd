"""Names of files and folders."""


def short_name(name: str) -> str:
    """At most 200 bytes of it: a folder's name has 255, and more comes behind it. Hangul of macOS takes 9 bytes a syllable."""
    return name.encode()[:200].decode(errors="ignore")
