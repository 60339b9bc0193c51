"""Every command that the READMEs show is one that there is; the quick ones are run as they stand."""

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
READMES = (README, *sorted((ROOT / "deploy").rglob("README.md")))
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
SHELLS = {"bash", "console", "sh", "shell"}
WORDS_BEFORE = {"sudo", "exec", "time", "env", "nohup"}
SEPARATORS = {"&&", "||", ";", "|", "&", "(", ")", "|&"}
REDIRECTIONS = {">", ">>", "<", "2>", ">&"}


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command: its words, without assignments, redirections and the prompt."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    @property
    def is_ours(self) -> bool:
        return self.program == "dualtrack" or self.words[:3] == ("python", "-m", "dualtrack")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows `dualtrack`."""
        return self.words[1:] if self.program == "dualtrack" else self.words[3:]


def commands(text: str) -> Iterator[Command]:
    """Every simple command of the shell blocks of a document."""
    for block in FENCE.finditer(text):
        if block["language"] in SHELLS:
            for line in lines(block["text"], is_console=block["language"] == "console"):
                yield from simple(line)


def lines(block: str, *, is_console: bool) -> Iterator[str]:
    """Whole command lines. In a console block only what follows a `$`, if there is one at all; the rest is output."""
    joined = block.replace("\\\n", " ").splitlines()
    has_prompt = any(line.lstrip().startswith("$ ") for line in joined)
    for line in joined:
        stripped = line.strip()
        if stripped.startswith("$ "):
            yield stripped[2:]
        elif not (is_console or has_prompt):
            yield stripped


def simple(line: str) -> Iterator[Command]:
    """Split a line at `&&`, `|` and the like; comments and what is no shell give nothing."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation that goes on in the next line: a here-document or a program's text
        return
    current: list[str] = []
    for word in [*words, ";"]:
        if word in SEPARATORS:
            command = bare(current)
            if command:
                yield Command(tuple(command))
            current = []
        else:
            current.append(word)


def bare(words: list[str]) -> list[str]:
    """Take assignments and the like off the front, and redirections off the end."""
    while words and (re.match(r"\w+=", words[0]) or words[0] in WORDS_BEFORE):
        words = words[1:]
    cut = next((number for number, word in enumerate(words) if word in REDIRECTIONS), len(words))
    return words[:cut]


def documented() -> list[Command]:
    return list(dict.fromkeys(command for readme in READMES for command in commands(readme.read_text())))


def ours() -> list[Command]:
    return [command for command in documented() if command.is_ours]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dualtrack", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@functools.cache
def help_of(*path: str) -> str:
    """What `--help` prints; empty if there is no such command."""
    done = run(*path, "--help")
    return done.stdout if done.returncode == 0 else ""


def test_the_readme_shows_commands() -> None:
    """A reader of blocks that found nothing would prove nothing."""
    assert {command.arguments[0] for command in ours() if command.arguments} >= {"serve", "check", "status", "drain"}
    assert {"demo", "test"} <= {command.words[1] for command in documented() if command.program == "make"}


@pytest.mark.parametrize("command", ours(), ids=str)
def test_every_dualtrack_command_is_one(command: Command) -> None:
    """The command is there, and its `--help` lists every option that is used."""
    path: list[str] = []
    for word in command.arguments:
        if word.startswith("-") or not is_subcommand(path, word):
            break
        path.append(word)
    assert path, f"{command}: no such command"
    text = help_of(*path)
    assert "Commands:" not in text, f"{command}: which one?"
    used = [word.partition("=")[0] for word in command.arguments if word.startswith("-") and word != "-"]
    assert not [option for option in used if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)], text


def is_subcommand(path: list[str], word: str) -> bool:
    """Whether the help of `path` lists `word` among its commands."""
    listed = help_of(*path).partition("Commands:\n")[2]
    return bool(re.search(rf"^  {re.escape(word)}(\s|$)", listed, re.MULTILINE))


@pytest.mark.parametrize("command", [item for item in documented() if item.program == "make"], ids=str)
def test_every_make_target_exists(command: Command) -> None:
    """`make -n` prints what it would do, and does nothing."""
    done = subprocess.run(["make", "-n", *command.words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def quick() -> list[Command]:
    return [command for command in ours() if is_quick(command.arguments)]


def is_quick(arguments: tuple[str, ...]) -> bool:
    """Commands that need nothing running: a version, a help, a check of a file that is in the repository."""
    match arguments:
        case ("version", *_):
            return True
        case ("check", *rest) if "--online" not in rest:
            return any((ROOT / word).is_file() for word in rest)
        case _:
            return "--help" in arguments


@pytest.mark.parametrize("command", quick(), ids=str)
def test_quick_commands_work(command: Command) -> None:
    """They are run as they stand, with something in every variable that the file asks for."""
    named = "".join((ROOT / word).read_text() for word in command.arguments if (ROOT / word).is_file())
    done = run(*command.arguments, env=dict.fromkeys(re.findall(r"\$\{(\w+)\}", named), "given"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_every_example_configuration_is_right() -> None:
    """`dualtrack check` takes each file of `config/`."""
    for path in sorted((ROOT / "config").glob("*.yaml")):
        done = run(
            "check",
            "--config",
            str(path),
            env=dict.fromkeys(re.findall(r"\$\{(\w+)\}", path.read_text()), "given"),
        )
        assert done.returncode == 0, f"{path.name}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(readme: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", readme.read_text())

    assert not [target for target in targets if not (readme.parent / target).exists()]


def test_every_file_that_a_folder_of_deploy_has_is_in_its_readme() -> None:
    """Nobody has to guess what a file beside a README is for."""
    for readme in READMES[1:]:
        files = (path.name for path in readme.parent.iterdir() if path.is_file() and path != readme)
        assert not [name for name in files if name not in readme.read_text()], readme
