"""Parts of the README and the contributing guide."""

import re

from tests.runner import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")


def section(heading: str, text: str = README) -> str:
    """Return the text below a heading, down to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert match, heading
    rest = text[match.end() :]
    return re.split(rf"^#{{1,{len(match[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(heading: str, language: str, text: str = README) -> list[str]:
    """Return the content of the fenced blocks of a language below a heading."""
    pattern = rf"^( *)```{language}\n(.*?)\n\1```$"
    found = re.findall(pattern, section(heading, text), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def block(heading: str, language: str, text: str = README) -> str:
    """Return the only such block."""
    (code,) = blocks(heading, language, text)
    return code
