"""What a model cannot do: one sentence that says who can."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from sightline.core.errors import UnsupportedTaskError
from sightline.hub import catalogue
from sightline.tasks.model import Model, load
from tests.tasks.colours import RED, colour_model

GENERATIVE: dict[str, Callable[[Model], object]] = {
    "caption": lambda m: m.caption(RED, detail="short"),
    "chat": lambda m: m.chat([], stream=True),
    "logprob": lambda m: m.logprob(RED, "caption", ["a"]),
    "detect": lambda m: m.detect(RED, ["a"]),
    "segment": lambda m: m.segment(RED),
    "draw": lambda m: m.draw("a bench", seed=1, steps=2, guidance=3.0, count=1),
    "upscale": lambda m: m.upscale(RED, prompt=None, seed=0),
    "fill": lambda m: m.fill(RED, RED),
    "fill_text": lambda m: m.fill_text("a [MASK]", image=RED),
}


@pytest.mark.parametrize("task", GENERATIVE)
def test_the_error_names_models_which_can(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    able = [SimpleNamespace(name=f"org/{task}er"), SimpleNamespace(name="colour-clip")]
    monkeypatch.setattr(catalogue, "models_for", lambda asked: able if asked == task else [])
    with pytest.raises(UnsupportedTaskError) as caught:
        GENERATIVE[task](colour_model("clip"))
    message = str(caught.value)
    assert message.startswith("colour-clip (dual encoder) cannot ")
    assert message.endswith(f"models which can: org/{task}er")
    assert "it can embed, similarity, classify" in message and "\n" not in message


def test_the_error_says_when_no_model_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "models_for", lambda task: [])
    with pytest.raises(UnsupportedTaskError, match="no model of this version can find boxes"):
        colour_model("clip").detect(RED)


def test_a_question_without_choices_says_to_give_choices(clip: Model) -> None:
    with pytest.raises(
        UnsupportedTaskError, match=r"cannot answer freely: pass choices=\[\.\.\.\]"
    ):
        clip.ask(RED, "what is it?")


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.embed_texts("red"),
        lambda m: m.similarity(RED, "red"),
        lambda m: m.classify(RED, ["red"]),
        lambda m: m.tag(RED),
        lambda m: m.match(RED, "red"),
        lambda m: m.ask(RED, "which?", choices=["red", "blue"]),
    ],
)
def test_an_image_encoder_refuses_words_and_names_dual_encoders(
    vit: Model, ask: Callable[[Model], object]
) -> None:
    with pytest.raises(
        UnsupportedTaskError,
        match=r"\(image encoder\) cannot .*can: google/siglip2-base-patch16-224, ",
    ):
        ask(vit)


def test_tasks_are_what_the_role_can(clip: Model, vit: Model) -> None:
    assert vit.tasks == ("embed",)
    assert set(clip.tasks) == {
        "embed", "similarity", "classify", "tag", "match", "retrieve", "ask", "explain"
    }  # fmt: skip


def test_signatures_are_the_promised_ones() -> None:
    promised = {
        "embed_images": "(self, images, batch_size=32)",
        "embed_texts": "(self, texts)",
        "similarity": "(self, images, texts)",
        "classify": "(self, image, labels=None, templates=None)",
        "tag": "(self, image, vocabulary=None, threshold=None)",
        "caption": "(self, image, prompt=None, **options)",
        "ask": "(self, image, question, choices=None, **options)",
        "chat": "(self, messages, stream=False, **options)",
        "logprob": "(self, image, prompt, texts)",
        "match": "(self, image, texts)",
        "detect": "(self, image, queries=None)",
        "segment": "(self, image, queries=None)",
        "draw": "(self, prompt, seed=0, steps=None, guidance=None, sampler=None, size=None, "
        "negative=None, image=None, mask=None, strength=None, latents=None, count=1)",
        "upscale": "(self, image, prompt=None, seed=0)",
        "fill": "(self, image, mask)",
        "fill_text": "(self, text, image=None)",
        "explain": "(self, image, text, method=None)",
        "save": "(self, folder)",
    }
    for name, signature in promised.items():
        assert _bare(getattr(Model, name)) == signature, name
    assert _bare(load) == (
        "(name, device='auto', dtype='auto', revision=None, adapter=None, quantize=None, "
        "allow_pickle=False)"
    )


def _bare(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))
