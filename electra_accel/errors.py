"""The one exception that stands for a mistake a user can mend."""


class UserError(Exception):
    """Input that cannot be used: one clear line that names the file or option and the remedy.

    Scripts print it on stderr as ``error: …`` and leave with exit code 2, without a traceback.
    Anything else that escapes is a bug of ours and exits with 1.
    """


class OneProcessError(UserError):
    """A UserError that perhaps only this one of several processes has met, such as a GPU that is out of memory."""
