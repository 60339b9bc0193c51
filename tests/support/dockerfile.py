"""A Dockerfile read into its stages and instructions: as much of its language as ours uses, and no more."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`RUN x` is its keyword and the rest of its line; flags such as `--from=build` stand apart."""

    keyword: str
    flags: dict[str, str] = field(default_factory=dict)
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the exec form, or those of a plain one."""
        return list(orjson.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


def stages(path: Path) -> list[list[Instruction]]:
    """The instructions of each stage, from its FROM on; what stands before the first is left out."""
    found: list[list[Instruction]] = []
    for line in _lines(path.read_text()):
        keyword, _, rest = line.partition(" ")
        instruction = _read(keyword.upper(), rest.strip())
        if instruction.keyword == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def the(keyword: str, stage: list[Instruction]) -> Instruction:
    """The last one of its kind: the one that counts."""
    return [instruction for instruction in stage if instruction.keyword == keyword][-1]


def variables(stage: list[Instruction]) -> dict[str, str]:
    """What ENV sets."""
    pairs = (word.partition("=") for item in stage if item.keyword == "ENV" for word in item.words)
    return {name: value for name, _, value in pairs}


def _read(keyword: str, rest: str) -> Instruction:
    flags: dict[str, str] = {}
    while found := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags[found[1]] = found[2]
        rest = rest[found.end() :]
    return Instruction(keyword=keyword, flags=flags, text=rest)


def _lines(text: str) -> list[str]:
    code = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(code)).splitlines()
