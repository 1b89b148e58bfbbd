"""The built-in corpus ``python_docs``: English technical prose from the docstrings of installed Python packages.

Needs no network and ships no text. Sources are the standard library and what every installation of this package brings along,
so that optional packages do not change the corpus. It is read with `ast`; nothing is imported or run.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

# Distribution and import name are the same for all of these. Their order is part of the corpus: a repeated paragraph counts
# where it comes first.
PACKAGES = (
    "numpy pandas torch transformers datasets accelerate tokenizers huggingface_hub safetensors pyarrow networkx "
    "fsspec pydantic requests httpx jinja2 rich click tqdm packaging filelock typing_extensions"
).split()

# Tests, vendored copies, and the parts of the large packages that take long to parse and hold little prose.
_SKIPPED = re.compile(
    r"(^|/)(tests?|testing|_testing|idle_test|lib2to3|site-packages|dist-packages|ensurepip|_vendor|vendor|vendored|__pycache__)/"
    r"|^torch/(_inductor|_dynamo|sparse|ao|_functorch|_higher_order_ops|onnx|_export)/|^transformers/models/"
    r"|^(python|numpy)/(encodings|distutils|idlelib)/|(^|/)(test_|conftest|pydoc_data)"
)


def content_key() -> str:
    """Changes when the corpus may: Python's and the packages' versions, and this file."""
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    return "\n".join([platform.python_version(), *versions, hashlib.sha256(Path(__file__).read_bytes()).hexdigest()])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def harvest(packages: Sequence[str] = PACKAGES) -> Iterator[tuple[str, list[str]]]:
    """Yields (source file, documents) in a fixed order, as in ("torch/nn/functional.py", [...]); the standard library first.

    A document is what is new of one docstring: its cleaned paragraphs, joined by line breaks, without those that an earlier
    docstring had. A file that this Python cannot parse yields one empty document, which counts as skipped.
    """
    seen: set[bytes] = set()
    for source, path in _sources(packages):
        code = path.read_bytes()
        if b'"""' not in code and b"'''" not in code:
            continue  # parsing takes most of the time
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's code
                tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError):
            yield source, [""]
            continue
        documents = []
        for docstring in _docstrings(tree):
            new = []
            for paragraph in paragraphs(docstring):
                fingerprint = hashlib.blake2b(paragraph.casefold().encode(), digest_size=8).digest()
                if fingerprint not in seen:
                    seen.add(fingerprint)
                    new.append(paragraph)
            if new:
                documents.append("\n".join(new))
        if documents:
            yield source, documents


def _sources(packages: Sequence[str]) -> Iterator[tuple[str, Path]]:
    roots = [("python", Path(sysconfig.get_path("stdlib")))]
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            roots.append((package, Path(spec.submodule_search_locations[0])))
    for name, root in roots:
        for relative in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py")):
            source = f"{name}/{relative}"
            if not _SKIPPED.search(source):
                yield source, root / relative


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """Docstrings of the module, its classes and functions, top to bottom. Expressions are not visited: that is slow."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try):
            nodes.extend(reversed(node.body))


# What is not prose, cut out of the whole docstring before it is read line by line.
_NOT_PROSE = [
    re.compile(r"^ *```.*?(?:^ *```|\Z)", re.MULTILINE | re.DOTALL),  # fenced code
    # a console session, up to a blank line
    re.compile(r"^ *(?:>>>|\.\.\.|\$|In \[\d+\]:) .*(?:\n(?! *$).*)*", re.MULTILINE),
    re.compile(  # blocks of other directives, link targets and footnotes, with all that is indented below them
        r"^( *)\.\. (?:code|code-block|sourcecode|math|image|figure|plot|csv-table|table|list-table|autosummary|toctree|"
        r"currentmodule|ipython|testcode|testoutput|index|_|\[).*(?:\n(?:\1 +.*| *$))*",
        re.MULTILINE,
    ),
    re.compile(r"(?<=:):[ ]*\n(?:[ ]*\n)*([ ]+)\S.*(?:\n(?:\1.*|[ ]*$))*", re.MULTILINE),  # indented block after "::"
    re.compile(r"^.*\n *([-=~^*\"'#])\1{2,} *$", re.MULTILINE),  # a section's title and the line under it
]
_DIRECTIVE = re.compile(r"^\.\. [\w-]+::[ ]*[\d.]*[ ]*")  # note, warning, deprecated, versionadded: their text is prose
_PARAMETER = re.compile(
    r"^(?::\w+[^:]*:"  # :param x:
    r"|\*{0,2}`{0,2}\w[\w.*, `]*\s?\([^()]*(?:\([^()]*\)[^()]*)*\)\s*(?::|--)"  # x (int, optional):
    r"|[\w.*, `\"']{1,40} : .*"  # x : int, a line of its own
    r"|\*{0,2}`{0,2}[A-Za-z_]\S{0,40}\s*:(?= +[A-Z]))\s*"  # x: What it means, Tensor: What is returned
)
_TITLE = re.compile(r"^[A-Z][\w ]{0,30}:$")  # Returns:
_BULLET = re.compile(r"^(?:[-*+•]|\(?\w{1,2}[.)])\s+")
_INLINE = (
    (re.compile(r":[\w:+-]+:`~?(?:[^`<]*<)?!?([^`>']*)>?[`']"), r"\1"),  # :class:`~torch.Tensor`
    (re.compile(r"`([^`'\s]{1,40})'"), r"'\1'"),  # `old quotes'
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_*"), r"\1"),  # `text <link>`_
    (re.compile(r"\[([^\]\[]+)\][(\[][^)\]]*[)\]]"), r"\1"),  # [text](link), [text][link]
    (re.compile(r"`+([^`]*)`+_*|`"), r"\1"),
    (re.compile(r"\*\*([^*\s][^*]*)\*\*|(?<!\w)\*([^*\s][^*]*)\*(?!\w)"), r"\1\2"),
    (re.compile(r"\[\d+\]_|\|\w+\||<https?:[^>]*>|<[^<>]{1,40}>"), ""),
    (re.compile(r"[\s:]*::\s*$"), ":"),
    (re.compile(r"\s+"), " "),
)
_WORD = re.compile(r"^[(\"']?[A-Za-z]+(?:['’-][A-Za-z]+)*[)\"']?[.,;:!?)]*$")


def paragraphs(docstring: str) -> list[str]:
    """The prose of a docstring, one string a paragraph, without code, tables, type lines and markup."""
    text = docstring.expandtabs()
    for pattern in _NOT_PROSE:
        text = pattern.sub("", text)
    found: list[list[str]] = [[]]
    indent = 0
    for line in text.split("\n"):
        body = line.strip()
        depth = len(line) - len(line.lstrip())
        content = _DIRECTIVE.sub("", body)
        marker = _BULLET.match(content) or _PARAMETER.match(content)
        if not body or marker or content != body or depth < indent or _TITLE.match(body):
            found.append([])  # here a new paragraph begins
        if not _TITLE.match(body):
            found[-1].append(content[marker.end() :] if marker else content)
        indent = depth
    return [prose for lines in found if _is_prose(prose := _without_markup(" ".join(lines)))]


def _without_markup(paragraph: str) -> str:
    for pattern, replacement in _INLINE:
        paragraph = pattern.sub(replacement, paragraph)
    return paragraph.strip()


def _is_prose(paragraph: str) -> bool:
    """At least one finished sentence of six words, of which four in five are plain words."""
    words = paragraph.split()
    if len(words) < 6 or paragraph[-1] not in ".!?:" or not paragraph[0].isalnum() or "\\" in paragraph:
        return False
    return sum(map(bool, map(_WORD.match, words))) >= 0.8 * len(words)
