"""The reading of pages itself: what is compared, and what is not let through."""

from __future__ import annotations

import pytest

from tests.docs import pages
from tests.docs.test_blocks import run

PAGE = """# A `page`, of [links](other.md#there)

## Twice
## Twice

<!-- not run: needs a robot -->
<!-- exit: 3 -->
```console
$ first --flag \\
    word
shown
$ second
```

`[no](link.md)` and ![picture](images/p.svg) and [far](https://example.org/x)

```python
print("`")
```
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_blocks_have_marks_lines_and_commands(page):
    console, python = pages.blocks(page)
    assert console.marks == {"not run": "needs a robot", "exit": "3"} and console.line == 8 and python.marks == {}
    assert [(c.text, c.output) for c in pages.commands(console)] == [("first --flag word", "shown"), ("second", None)]


def test_anchors_and_links(page):
    assert pages.anchors(page) == {"a-page-of-links", "twice", "twice-1"}
    assert pages.links(page) == ("other.md#there", "images/p.svg")


@pytest.mark.parametrize("got", ["a  0.17 ms of 3", "a 12.5 ms of 3", "a 1e-05 ms of 3"])
def test_measured_numbers_and_spaces_do_not_count(got):
    assert pages.matches("a 0.2 ms of 3", got)


@pytest.mark.parametrize("got", ["a 0.2 ms of 4", "b 0.2 ms of 3", "a 0.2 ms of 3\nmore", "", "a x ms of 3"])
def test_words_and_counts_do(got):
    assert not pages.matches("a 0.2 ms of 3", got)


def test_dots_stand_for_lines():
    assert pages.matches("...\nlast", "one\ntwo\nlast") and pages.matches("first\n...", "first")
    assert not pages.matches("...\nlast", "one\ntwo") and not pages.matches("one\n...\nlast", "two\nlast")


def test_commands_fail_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("vlacompile inspect nothing.vlab")[0] == 8
    assert run("vlacompile --help")[0] == 0
    assert run("false")[0] == 1 and run("echo word") == (0, "word\n")
