"""How a checkpoint that writes wants to be asked: what frames a prompt, and a template a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sightline.core.errors import ConfigError, UnsupportedTaskError, unknown_name
from sightline.inputs.prompts import fill

if TYPE_CHECKING:
    from sightline.inputs.tokenizers import TextTokenizer


@dataclass(frozen=True)
class Instructions:
    """The words that a system was trained to be asked with.

    A template has one `{}` for the words of the person who asks; None where the system was never
    trained for the task.
    """

    caption: Mapping[str, str] = field(default_factory=dict)
    """Level of detail, "short" or "long", to the whole prompt."""
    ask: str | None = None
    detect: str | None = None
    segment: str | None = None
    joiner: str = " ; "
    """Between the things that `detect` and `segment` are asked for."""
    classify: str = "what is this?"
    """The question whose likeliest answer among some labels is the class."""
    match: str = 'does this figure show "{}"? please answer yes or no.'
    """The question whether a text describes the picture (VQAScore, Lin et al. 2024,
    arXiv 2404.01291, section 3), answered by one of `yes_no`."""
    yes_no: tuple[str, str] = ("yes", "no")
    begin: bool = True
    """Whether the begin token stands in front of the words (behind the pictures)."""
    separator: str = ""
    """Closes a prompt; encoded on its own, so that it is a token of its own."""
    places: str = "paligemma"
    """Whose tokens write boxes and masks (`inputs.coordinates`)."""
    picture_tokens: int = 0
    """How many tokens other programs put into a prompt for one picture."""
    picture: str = ""
    """Marks a picture in a trusted prompt, in front of its words; pictures without marks are
    thought to stand there."""

    def knows(self, task: str) -> bool:
        """Whether the system was trained for a task; whatever answers questions scores answers."""
        own = {"caption": self.caption, "detect": self.detect, "segment": self.segment}
        return bool(own.get(task, self.ask)) or task == "logprob"

    def caption_prompt(self, detail: str) -> str:
        """The prompt of a caption.

        Raises:
            UnsupportedTaskError: the system writes none.
            ConfigError: a level of detail that it does not know.
        """
        if not self.caption:
            raise UnsupportedTaskError("this system was not trained to write captions")
        if detail not in self.caption:
            raise ConfigError(unknown_name("detail", detail, self.caption))
        return self.caption[detail]

    def question(self, question: str) -> str:
        """The prompt of a question."""
        return _filled(self.ask, question, "answer questions")

    def conversation(self, earlier: Sequence[str], question: str) -> str:
        """A question behind earlier turns, which are plain lines without roles, oldest first."""
        return "\n".join([*earlier, self.question(question)])

    def detection(self, names: Sequence[str]) -> str:
        """The prompt that asks for boxes."""
        return _filled(self.detect, self.joiner.join(names), "find boxes")

    def segmentation(self, names: Sequence[str]) -> str:
        """The prompt that asks for masks."""
        return _filled(self.segment, self.joiner.join(names), "cut out masks")

    def claim(self, text: str) -> str:
        """The prompt that asks whether a text describes the picture."""
        return self.question(fill(self.match, text))

    def unmarked(self, prompt: str) -> tuple[str, int]:
        """A trusted prompt without its marks of pictures, and how many there were.

        Raises:
            ConfigError: a mark behind words, where no picture can stand.
        """
        words, count = prompt, 0
        while self.picture and words.startswith(self.picture):
            words, count = words[len(self.picture) :], count + 1
        if self.picture and self.picture in words:
            raise ConfigError(
                f"{self.picture} stands behind words in {prompt[:60]!r}: pictures come first"
            )
        return words, count

    def encode(self, tokenizer: TextTokenizer, prompt: str, trusted: bool = False) -> list[int]:
        """The ids of a whole prompt, framed.

        Args:
            trusted: whether spelled special tokens count as such.
        """
        begin = [tokenizer.bos_id] if self.begin and tokenizer.bos_id is not None else []
        closing = tokenizer.encode(self.separator, trusted=True) if self.separator else []
        return [*begin, *tokenizer.encode(prompt, trusted), *closing]


PALIGEMMA = Instructions(
    caption={"short": "caption en", "long": "describe en"},
    ask="answer en {}",
    detect="detect {}",
    segment="segment {}",
    separator="\n",
    picture="<image>",
)
"""The prompts of pre-training (Beyer et al. 2024, arXiv:2407.07726, appendix B.1); here, where data
that teach them can read them too."""


def _filled(template: str | None, words: str, deed: str) -> str:
    if template is None:
        raise UnsupportedTaskError(f"this system was not trained to {deed}")
    return fill(template, words)
