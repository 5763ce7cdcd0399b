"""Commands in documentation: the ```console blocks marked `<!-- run -->`, as one bash session, and what they print."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)
_END = "--- end of block ---"
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Block:
    """Commands, and what the page says they print; `…` there stands for anything."""

    script: str
    output: str

    def printed(self, output: str) -> bool:
        """Whether that is what the page says, however wide the gaps between words are."""
        parts = (" ".join(part.split()) for part in self.output.split("…"))
        return re.fullmatch(".*?".join(re.escape(part) for part in parts), " ".join(output.split())) is not None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are marked, in order."""
    return [_block(text) for text in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def _block(text: str) -> Block:
    script: list[str] = []
    output: list[str] = []
    for line in text.splitlines():
        if line.startswith(("$ ", "> ")):
            script.append(line[2:])
        else:
            output.append(line)
    return Block("\n".join(script), "\n".join(output))


def run(
    session: Sequence[Block], *, folder: Path, environment: Mapping[str, str], instead: Mapping[str, str]
) -> list[str]:
    """What each block prints, errors too, when they run one after another in one bash. `instead` replaces texts of the
    page, such as an address."""
    script = "\n".join(f"{block.script}\necho '{_END}'" for block in session)
    for written, meant in instead.items():
        script = script.replace(written, meant)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    printed = done.stdout.split(_END)
    assert len(printed) == len(session) + 1, f"the session ended early:\n{done.stdout}"
    return printed[:-1]
