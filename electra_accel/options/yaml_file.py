"""YAML files, read strictly: a name twice is an error, and so is text that no command line, file or folder could hold."""

import re
from pathlib import Path
from typing import Any

import yaml

from electra_accel.errors import UserError

NULL = "null"


class _Strict:
    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if found := re.search("[\0\ud800-\udfff]", node.value):
            problem = f"the escape {ascii(found[0])[1:-1]} stands for no character of a text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:  # PyYAML would take the last one without a word
                problem = f"{key.value!r} stands in line {lines[key.value]} already; keep one of the two"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
            key.style = key.style or '"'  # a name is a text, also one that is written null
        return super().construct_mapping(node, deep)


class _Texts(_Strict, yaml.BaseLoader):
    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:
        return None if node.style is None and node.value in (NULL, "") else node.value


class _Values(_Strict, yaml.SafeLoader):
    pass


def read_yaml(path: str | Path, option: str = "", typed: bool = False) -> Any:
    """What a YAML file holds: every value as the text that is written, the bare word null and nothing at all as None. With
    ``typed`` numbers, texts, true and false, as any YAML reader has them.

    Raises:
        UserError: names ``option``, the file, and the line where it is broken or has a name twice.
    """
    where = f"{option} {path}".strip()
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Values if typed else _Texts)
    except OSError as error:
        problem = error.strerror
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except yaml.MarkedYAMLError as error:
        where, problem = f"{path}, line {error.problem_mark.line + 1}", f"broken YAML: {error.problem}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as a date 2026-99-99: they have no mark
        problem = f"broken YAML: {' '.join(str(error).split())}"
    raise UserError(f"{where}: {problem}")
