"""The pages of the documentation as the tests see them: their text, their links, and their code blocks in order.

A comment directly above a code block says how it is treated:

    <!-- not run: REASON -->   it is shown only; the reason is required
    <!-- file: PATH -->        it is the content of that file, for the blocks after it
    <!-- exit: N -->           its last command ends with this exit code (default 0)
    <!-- served: BUNDLE -->    it runs beside a server of that bundle on openpi's port
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNNABLE = ("python", "console", "sh", "toml", "yaml", "c")

_FENCE = re.compile(r"^(?P<marks>(?:<!-- [^\n]*? -->\n+)*)```(?P<language>\w*)\n(?P<body>.*?)^```$",
                    re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- (not run|file|exit|served): *(.*?) *-->")


@dataclass(frozen=True)
class Block:
    """One fenced block. line: of its opening fence. marks: what the comments above it say."""

    page: Path
    line: int
    language: str
    body: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line after "$ " and the output that is shown below it; None: none is shown."""

    text: str
    output: str | None


def pages() -> tuple[Path, ...]:
    """Every Markdown file that a reader is sent to."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "runtime_c/README.md",
                                    "examples/libero_goal/README.md")]
    return (*top, *sorted(DOCS.rglob("*.md")))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.end("marks")) + 1
        found.append(Block(page, line, match["language"], match["body"], dict(_MARK.findall(match["marks"]))))
    return tuple(found)


def commands(block: Block) -> tuple[Command, ...]:
    """Of a console block: what follows each prompt; a line that ends in a backslash goes on. Of a sh block: every line
    that is not a comment."""
    if block.language == "sh":
        joined = block.body.replace("\\\n", " ")
        lines = (re.sub(r"\s+#.*$", "", line).strip() for line in joined.splitlines())
        return tuple(Command(line, None) for line in lines if line and not line.startswith("#"))
    found = []
    for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
        text, _, output = re.sub(r"\\\n\s*", "", part).partition("\n")
        found.append(Command(text.strip(), output.strip("\n") or None))
    return tuple(found)


_MEASURED = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])|(?<![\w.])-?\d+e[+-]?\d+|"
                       r"(?<![\w.])\d+(?= (?:ms|us|µs|s|MB|kB|GB)\b)")


def normal(text: str) -> list[str]:
    """Lines as they are compared: decimal numbers and quantities with a unit are "#", spaces count once."""
    lines = (re.sub(r"\s+", " ", _MEASURED.sub("#", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


def matches(shown: str, got: str) -> bool:
    """Whether `got` is what the page shows; a shown line "..." stands for any number of lines."""
    pattern, lines = normal(shown), normal(got)

    def fits(p: int, g: int) -> bool:
        if p == len(pattern):
            return g == len(lines)
        if pattern[p] == "...":
            return any(fits(p + 1, k) for k in range(g, len(lines) + 1))
        return g < len(lines) and pattern[p] == lines[g] and fits(p + 1, g + 1)

    return fits(0, 0)


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub and mkdocs give to a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.add(slug if slug not in found else next(s for i in range(1, 99) if (s := f"{slug}-{i}") not in found))
    return found


def links(page: Path) -> tuple[str, ...]:
    """Targets of links and images that are not addresses in the network."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    return tuple(t for t in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text) for t in t
                 if t and not re.match(r"[a-z]+:", t))
