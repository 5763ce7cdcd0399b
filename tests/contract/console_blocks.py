"""Commands of the documentation: runs the ```bash blocks marked `<!-- run -->` in one bash session."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"<!-- run -->\n```bash\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)
_END = "--- end of block ---"
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Block:
    """Commands and the output that the page shows for them, in which `…` stands for any text.

    They are as a reader pastes them: without prompts, and the output in a separate ```text block.
    """

    script: str
    output: str

    def printed(self, output: str) -> bool:
        """Returns whether the output matches the page, ignoring the width of gaps."""
        parts = (" ".join(part.split()) for part in self.output.split("…"))
        return re.fullmatch(".*?".join(re.escape(part) for part in parts), " ".join(output.split())) is not None


def blocks(page: Path) -> list[Block]:
    """Returns the marked blocks of a page, in order."""
    return [Block(script, output) for script, output in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def run(
    session: Sequence[Block], *, folder: Path, environment: Mapping[str, str], replacements: Mapping[str, str]
) -> list[str]:
    """Runs the blocks in one bash and returns the output of each, including errors.

    `replacements` maps texts of the page, such as an address, to what the test uses.
    """
    script = "\n".join(f"{block.script}\necho '{_END}'" for block in session)
    for text, replacement in replacements.items():
        script = script.replace(text, replacement)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    printed = done.stdout.split(_END)
    assert len(printed) == len(session) + 1, f"the session ended early:\n{done.stdout}"
    return printed[:-1]
