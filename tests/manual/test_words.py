"""How docstrings are taken apart."""

from __future__ import annotations

from tools.manual.words import Block, below_question, blocks


def test_paragraphs_points_terms_and_examples():
    """Each as it is laid out in the sources."""
    text = """First line
        goes on.

        name    a term
                that goes on
        other   another one, whose line
          goes on less far in

        - a point
          of two lines
        - another

            an example
                with an indent

        The end.
        """
    assert list(blocks(text)) == [
        Block("paragraph", "First line goes on."),
        Block("term", "a term that goes on", "name"),
        Block("term", "another one, whose line goes on less far in", "other"),
        Block("point", "a point of two lines"),
        Block("point", "another"),
        Block("example", "an example\n    with an indent"),
        Block("paragraph", "The end."),
    ]


def test_an_example_that_opens_a_docstring_keeps_its_lines():
    """cleandoc() would take the indent of a first line away."""
    text = below_question("What is it?\n\n    one   1\n    two   2\n\nThe end.")
    assert list(blocks(text)) == [Block("example", "one   1\ntwo   2"), Block("paragraph", "The end.")]
