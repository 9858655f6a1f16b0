"""The figures of `docs/learn`, computed with the library itself; the same bytes on every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image
from torch.nn.functional import logsigmoid, normalize

from sightline.core.interfaces import Prompt
from sightline.core.outputs import Detection, Segment
from sightline.data.park import ParkScenes, scene
from sightline.generation import scoring
from sightline.generation.sampling import shortlist
from sightline.inputs.convolution import filter_picture
from sightline.inputs.coordinates import PALIGEMMA
from sightline.inputs.grey_levels import to_grey
from sightline.inputs.grounded_text import Place
from sightline.inputs.location_tokens import parse_paligemma, write_paligemma
from sightline.inputs.named_masks import parse_filter
from sightline.metrics.intervals import wilson
from sightline.models.table import system
from sightline.nn import lora
from sightline.nn.linear import Linear
from sightline.nn.lora import LoRALinear
from sightline.nn.masks import causal, key_padding, prefix_causal
from sightline.nn.meta import without_memory
from sightline.nn.positions import resample_grid
from sightline.objectives.contrastive import softmax_contrastive
from sightline.tasks.feature_sheets import layer_sheet
from sightline.tasks.features import find_features
from sightline.tasks.marked import marked
from sightline.tasks.model import load
from sightline.tasks.network_layers import layer_names
from sightline.tasks.overlay import heat_overlay

BLUE, RED, GREEN, GREY, PALE = "#2d6ccd", "#d0402f", "#2f8f5b", "#8a8f98", "#e7e9ee"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "sightline",
}
DPI = 100


def write_all(folder: Path) -> None:
    """Write every figure as a PNG of 700 pixels' width."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        with rc_context(STYLE):
            draw().savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})


def panels(count: int, height: float = 3.0, **options: Any) -> tuple[Figure, list[Any]]:
    """A figure of 7 inches' width with panels side by side."""
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, **options)[0]
    return figure, list(axes)


def bare(axes: Any) -> None:
    """No ticks and no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def cells(axes: Any, values: np.ndarray, texts: Sequence[Sequence[str]] | None = None) -> None:
    """A matrix of shaded cells, with words in them where given."""
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1.25, aspect="equal")
    for row in range(values.shape[0] + 1):
        axes.axhline(row - 0.5, color="white", linewidth=2)
    for column in range(values.shape[1] + 1):
        axes.axvline(column - 0.5, color="white", linewidth=2)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row, line in enumerate(texts or ()):
        for column, text in enumerate(line):
            dark = values[row, column] > 0.7
            axes.text(column, row, text, ha="center", va="center", fontsize=9,
                      color="white" if dark else "#333333")  # fmt: skip


def patches() -> Figure:
    """A picture, its grid of patches, and the sequence that they become."""
    pixels, side = scene(9, size=64).pixels, 16
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 1])
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    below = figure.add_subplot(grid[1, :])
    left.imshow(pixels)
    left.set_title("a picture of 64 x 64 pixels")
    right.imshow(pixels)
    right.set_title("a grid of 4 x 4 patches of 16 x 16")
    for place in range(1, 64 // side):
        right.axhline(place * side - 0.5, color="white", linewidth=1.6)
        right.axvline(place * side - 0.5, color="white", linewidth=1.6)
    for number in range(16):
        row, column = divmod(number, 4)
        right.text(column * side + 1, row * side + 4.5, str(number), fontsize=8,
                   bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    gap = np.full((side, 3, 3), 255, np.uint8)
    row_of_patches: list[np.ndarray] = []
    for number in range(16):
        y, x = (side * part for part in divmod(number, 4))
        row_of_patches += [pixels[y : y + side, x : x + side], gap]
    below.imshow(np.concatenate(row_of_patches, axis=1))
    below.set_title("a sequence of 16 tokens, each 16 x 16 x 3 = 768 numbers, in raster order")
    for axes in (left, right, below):
        bare(axes)
    return figure


def positions() -> Figure:
    """One channel of a position table, resampled and cut off."""
    rows, columns = np.mgrid[0:7, 0:7] / 6
    table = torch.from_numpy(np.cos(2.4 * rows) + 0.8 * columns).float()  # [7 7]
    moved = resample_grid(table.reshape(49, 1), (7, 7), (12, 12)).reshape(12, 12)
    repeated = table.flatten()[torch.arange(144) % 49].reshape(12, 12)
    figure, axes = panels(3, 2.7)
    shown = (
        ("trained: 7 x 7 places", table),
        ("resampled to 12 x 12", moved),
        ("rows read on as a list: wrong", repeated),
    )
    for place, (title, values) in zip(axes, shown, strict=True):
        place.imshow(values.numpy(), cmap="viridis", vmin=-0.8, vmax=1.9)
        place.set_title(title)
        bare(place)
    return figure


def masks() -> Figure:
    """Who may attend to whom."""
    words = ["a", "red", "bench", "here", "[pad]"]
    padded = key_padding(torch.tensor([4]), 5)[0, 0].expand(5, 5)
    shown = (
        ("causal", causal(5)),
        ("bidirectional", torch.ones(5, 5, dtype=torch.bool)),
        ("padding hidden", padded),
    )
    figure, axes = panels(3, 2.9)
    for place, (title, mask) in zip(axes, shown, strict=True):
        values = mask.numpy()
        cells(place, values * 0.9, [["T" if cell else "" for cell in row] for row in values])
        place.set_title(title)
        place.set_xticks(range(5), words, rotation=40, ha="right", rotation_mode="anchor")
        place.set_yticks(range(5), words)
    axes[0].set_ylabel("query (row) attends to key (column)")
    return figure


def prefix() -> Figure:
    """Who sees whom when an answer is written behind a picture and a question."""
    words = ["patch", "patch", "what", "?", "red", "ball", "[end]"]
    places, four = torch.arange(7)[None], torch.tensor([[4]])
    shown = (
        ("causal", prefix_causal(places, places)),
        ("prefix-LM", prefix_causal(places, places, four)),
        ("with a window of 3", prefix_causal(places, places, four, 3)),
    )
    figure, axes = panels(3, 2.9)
    for place, (title, mask) in zip(axes, shown, strict=True):
        values = mask[0, 0].numpy()
        cells(place, values * 0.9, [["T" if cell else "" for cell in row] for row in values])
        place.set_title(title)
        place.set_xticks(range(7), words, rotation=40, ha="right", rotation_mode="anchor")
        place.set_yticks(range(7), words)
        place.axhline(3.5, color=RED, linewidth=1)
        place.axvline(3.5, color=RED, linewidth=1)
    axes[0].set_ylabel("query (row) attends to key (column)")
    return figure


def contrastive() -> Figure:
    """The same cosines at two scales: what the softmax over a row makes of them."""
    cosines = torch.tensor(
        [[0.34, 0.22, 0.18, 0.15], [0.20, 0.31, 0.26, 0.16],
         [0.17, 0.25, 0.29, 0.19], [0.14, 0.18, 0.21, 0.33]]
    )  # fmt: skip
    figure, axes = panels(3, 2.9)
    titles = ("cosines", "softmax of rows, scale 1", "softmax of rows, scale 50")
    values = (cosines, cosines.softmax(dim=1), (50 * cosines).softmax(dim=1))
    for place, title, shown in zip(axes, titles, values, strict=True):
        cells(place, shown.numpy(), [[f"{v:.2f}" for v in row] for row in shown.tolist()])
        place.set_title(title)
        place.set_xticks(range(4), [f"text {i}" for i in range(1, 5)], rotation=30)
        place.set_yticks(
            range(4), [f"picture {i}" for i in range(1, 5)] if place is axes[0] else [""] * 4
        )
        for i in range(4):
            place.add_patch(
                Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=RED, linewidth=2)
            )
    return figure


def learn_pairs(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> dict[str, list[float]]:
    """Free unit vectors of 64 pictures and texts under a loss of (logits, truth): what happens."""
    generator = torch.Generator().manual_seed(0)
    size = 64
    image, text = (torch.randn(size, 32, generator=generator).requires_grad_() for _ in range(2))
    scale, bias = torch.tensor(2.3).requires_grad_(), torch.tensor(-10.0).requires_grad_()
    optimiser = torch.optim.Adam([image, text, scale, bias], lr=0.05)
    eye = torch.eye(size, dtype=torch.bool)
    truth = 2.0 * eye - 1
    seen: dict[str, list[float]] = {"pairs": [], "others": [], "right": []}
    for _ in range(150):
        cosines = normalize(image, dim=1) @ normalize(text, dim=1).T
        logits = scale.exp() * cosines + bias
        seen["pairs"].append(logits[eye].mean().item())
        seen["others"].append(logits[~eye].mean().item())
        seen["right"].append((logits.argmax(dim=1) == torch.arange(size)).float().mean().item())
        optimiser.zero_grad()
        torch.autograd.backward(loss_of(logits, truth))
        optimiser.step()
    return seen


def sigmoid() -> Figure:
    """Logits of true pairs and others while learning, with the right sign and the wrong one."""
    forms: tuple[tuple[str, Callable[..., torch.Tensor]], ...] = (
        ("-log sigmoid(z l)", lambda logits, z: -logsigmoid(z * logits).sum(dim=1).mean()),
        ("-z log sigmoid(z l): wrong",
         lambda logits, z: -(z * logsigmoid(z * logits)).sum(dim=1).mean()),
    )  # fmt: skip
    figure, axes = panels(2, 3.1)
    for place, (title, loss) in zip(axes, forms, strict=True):
        seen = learn_pairs(loss)
        place.plot(seen["pairs"], color=BLUE, linewidth=2, label="true pairs")
        place.plot(seen["others"], color=RED, linewidth=2, linestyle="--", label="all others")
        place.axhline(0, color=GREY, linewidth=0.8)
        place.set_title(title)
        place.set_xlabel(f"step; picks the right text at the end: {seen['right'][-1]:.0%}")
        place.legend(frameon=False)
    axes[1].set_yscale("symlog", linthresh=10)
    axes[1].set_ylim(bottom=-30)
    axes[0].set_ylabel("mean logit")
    return figure


def locked() -> Figure:
    """Sentences learn on a circle: the pictures of four classes stay, or move too."""
    figure, axes = panels(2, 3.4)
    colours = (BLUE, RED, GREEN, GREY)
    titles = ("locked: sentences move to the pictures", "both learn: pictures move as well")
    for place, title, pictures_learn in zip(axes, titles, (False, True), strict=True):
        paths = walk_on_a_circle(pictures_learn)
        place.add_patch(Circle((0, 0), 1, fill=False, color=PALE))
        for number, colour in enumerate(colours):
            for path, marker, size in ((paths["pictures"], "o", 26), (paths["texts"], "*", 150)):
                for points in path[:, number].transpose(0, 1):
                    place.plot(*points.T, color=colour, linewidth=0.8, alpha=0.5)
                    place.scatter(*points[-1], color=colour, marker=marker, s=size, zorder=3)
        place.set_title(title)
        place.set_xlim(-1.25, 1.25)
        place.set_ylim(-1.25, 1.25)
        place.set_aspect("equal")
        bare(place)
    axes[0].set_xlabel("dots: pictures; stars: sentences")
    axes[1].set_xlabel("lines: the way there")
    return figure


def walk_on_a_circle(pictures_learn: bool) -> dict[str, torch.Tensor]:
    """Unit vectors [step class number 2] of pictures and sentences under the softmax loss."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.deg2rad(torch.tensor([20.0, 75.0, 165.0, 285.0]))
    angles = centres[:, None] + 0.16 * torch.randn(4, 5, generator=generator)
    pictures = angles.clone().requires_grad_(pictures_learn)
    texts = torch.deg2rad(torch.tensor([230.0, 200.0, 330.0, 130.0])).requires_grad_()
    optimiser = torch.optim.Adam([texts, *([pictures] if pictures_learn else [])], lr=0.04)
    seen: dict[str, list[torch.Tensor]] = {"pictures": [], "texts": []}
    for step in range(160):
        image, text = (torch.stack([a.cos(), a.sin()], dim=-1) for a in (pictures, texts))
        seen["pictures"].append(image.detach())
        seen["texts"].append(text.detach()[:, None])
        loss = softmax_contrastive(image[:, step % 5], text, torch.tensor(8.0))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return {name: torch.stack(points) for name, points in seen.items()}


def zeroshot() -> Figure:
    """Prompts of two classes on the unit circle, their means, and a picture."""
    figure, (axes,) = panels(1, 3.9)
    axes.add_patch(Circle((0, 0), 1, fill=False, color=GREY))
    for name, colour, angles in (("cat", BLUE, (8, 24, 44)), ("dog", GREEN, (62, 70, 86))):
        points = np.array([[np.cos(a), np.sin(a)] for a in np.radians(angles)])
        mean = points.mean(axis=0)
        unit = mean / np.linalg.norm(mean)
        axes.scatter(*points.T, color=colour, s=36, zorder=3, label=f"prompts of “{name}”")
        axes.plot(*zip((0, 0), unit, strict=True), color=colour, linewidth=1)
        axes.scatter(*mean, facecolors="white", edgecolors=colour, s=50, zorder=4,
                     label=f"their mean, length {np.linalg.norm(mean):.3f}")  # fmt: skip
        axes.scatter(*unit, color=colour, marker="*", s=170, zorder=4,
                     label="brought back to length 1")  # fmt: skip
    picture = np.radians(38)
    axes.scatter(np.cos(picture), np.sin(picture), color=RED, marker="X", s=90, zorder=5)
    axes.annotate("a picture", (np.cos(picture), np.sin(picture)), xytext=(0.85, 0.66), color=RED)
    axes.set_xlim(-0.05, 1.15)
    axes.set_ylim(-0.05, 1.12)
    axes.set_aspect("equal")
    figure.legend(frameon=False, loc="outside right center")
    bare(axes)
    return figure


def scores() -> Figure:
    """Softmax and sigmoid scores of the same logits, before and after adding a tag."""
    logits = {"tree": 1.2, "bench": 0.4, "car": -2.0}
    more = {**logits, "park": 2.6}
    figure, axes = panels(2, 2.9, sharey=True)
    for place, title in zip(
        axes, ("softmax: shares of one", "sigmoid: each on its own"), strict=True
    ):
        for offset, colour, values, label in (
            (-0.2, BLUE, logits, "three tags"),
            (0.2, GREEN, more, "“park” added"),
        ):
            raw = torch.tensor(list(values.values()))
            shown = raw.softmax(dim=0) if place is axes[0] else raw.sigmoid()
            x = np.arange(len(values)) + offset
            bars = place.bar(x, shown.numpy(), width=0.38, color=colour, label=label)
            place.bar_label(bars, fmt="%.2f", fontsize=8.5, padding=1)
        place.set_xticks(range(4), list(more))
        place.set_ylim(0, 1.12)
        place.set_title(title)
    axes[0].set_ylabel("score")
    axes[0].legend(frameon=False, loc="upper left")
    return figure


def ties() -> Figure:
    """hit@1 of a constant scorer and of a coarse one, by what is done about ties."""
    generator = torch.Generator().manual_seed(0)
    quality = torch.randn(2000, 50, generator=generator)
    quality[:, 0] += 1.6  # the right candidate stands in the first column
    step = 0.5
    kinds = {
        "constant": torch.zeros(2000, 50),
        "coarse": (quality / step).round() * step,
        "exact": quality,
    }
    figure, axes = panels(2, 3.0, gridspec_kw={"width_ratios": [1, 1.35]})
    listed = [("b", 0.9), ("right", 0.7), ("d", 0.7), ("e", 0.7), ("f", 0.4)]
    for place, (name, score) in enumerate(listed):
        colour = RED if name == "right" else (GREY if score == 0.7 else PALE)
        axes[0].barh(-place, score, color=colour)
        axes[0].text(0.03, -place, name, va="center", fontsize=9)
    axes[0].set_title("one query: rank 2, 3 or 4?")
    axes[0].set_xlabel("score")
    axes[0].set_yticks([])
    rules = ("ties for the model", "by chance", "against the model")
    for offset, rule, colour in zip((-0.27, 0, 0.27), rules, (RED, GREY, BLUE), strict=True):
        bars = axes[1].bar(
            np.arange(3) + offset, [tied_hits(s, rule) for s in kinds.values()], 0.26,
            color=colour, label=rule,
        )  # fmt: skip
        axes[1].bar_label(bars, fmt="{:.0%}", fontsize=8)
    axes[1].set_xticks(range(3), list(kinds))
    axes[1].set_ylim(0, 1.12)
    axes[1].set_yticks([])
    axes[1].set_title("hit@1 of three scorers, 50 candidates")
    axes[1].legend(frameon=False, loc="upper right")
    return figure


def tied_hits(scores_of: torch.Tensor, rule: str) -> float:
    """hit@1 where column 0 is right, under a rule for ties."""
    right, wrong = scores_of[:, :1], scores_of[:, 1:]
    first = (wrong <= right).all(dim=1)
    equals = (wrong == right).sum(dim=1)
    share = {"ties for the model": first.double(), "by chance": first / (1.0 + equals)}
    return share.get(rule, (first & (equals == 0)).double()).mean().item()


def precision() -> Figure:
    """Distance between neighbouring numbers, and what rounding does to a logit."""
    figure, axes = panels(2, 3.1)
    x = np.logspace(-6, 5, 400)
    for name, bits, lowest, highest, colour in (
        ("float32", 23, 2.0**-126, 3e38, GREEN),
        ("float16", 10, 2.0**-14, 65504.0, BLUE),
        ("bfloat16", 7, 2.0**-126, 3e38, RED),
    ):
        spacing = 2.0 ** (np.floor(np.log2(np.maximum(x, lowest))) - bits)
        axes[0].loglog(x, np.where(x < highest, spacing, np.nan), color=colour, label=name)
    axes[0].set_title("distance to the next number")
    axes[0].set_xlabel("size of a number")
    axes[0].legend(frameon=False)
    cosine = torch.linspace(0.30, 0.32, 400)
    axes[1].plot(cosine, 100 * cosine, color=GREEN, label="float32")
    axes[1].plot(cosine, 100 * cosine.bfloat16().float(), color=RED, label="bfloat16 cosine")
    axes[1].set_title("the logit at scale 100")
    axes[1].set_xlabel("cosine")
    axes[1].legend(frameon=False)
    return figure


def low_rank() -> Figure:
    """What learns at each rank, and what is left of a small update that is merged in bfloat16."""
    figure, axes = panels(2, 3.1)
    entry = system("clip")
    ranks = [1, 2, 4, 8, 16, 32, 64]
    counts = []
    for rank in ranks:
        with without_memory():
            network = entry.build(entry.variants["B/32"])
            whole = sum(p.numel() for p in network.parameters())
            lora.add(network, rank)
        counts.append(sum(p.numel() for p in network.parameters() if p.requires_grad))
    axes[0].plot(ranks, counts, "o-", color=BLUE, label="queries and values")
    axes[0].set_xscale("log", base=2)
    axes[0].set_yscale("log")
    axes[0].axhline(whole, color=GREY, label="all weights")
    axes[0].set_title("parameters of CLIP B/32 that learn")
    axes[0].set_xlabel("rank")
    axes[0].legend(frameon=False)
    sizes = np.logspace(-4.5, 0, 40)
    for kept, colour in ((torch.float32, GREEN), (torch.bfloat16, RED)):
        name = str(kept).removeprefix("torch.")
        axes[1].loglog(sizes, [lost(s, kept) for s in sizes], color=colour, label=name)
    axes[1].set_title("share of the update that merging loses")
    axes[1].set_xlabel("size of the update beside the weights")
    axes[1].legend(frameon=False)
    return figure


def lost(size: float, kept: torch.dtype) -> float:
    """How far a merged weight is from weight and addition, relative to the addition."""
    torch.manual_seed(0)
    with torch.no_grad():
        layer = LoRALinear(Linear(128, 128, bias=False), 4).double()
        torch.nn.init.normal_(layer.base.weight)
        layer.base.weight.copy_(layer.base.weight.to(kept))
        torch.nn.init.normal_(layer.lora_B)
        addition = layer.lora_B @ layer.lora_A
        layer.lora_B.mul_(size / addition.std())
        exact = layer.sum() - layer.base.weight
        merged = layer.sum().to(kept).double() - layer.base.weight
        return float((merged - exact).norm() / exact.norm())


def honesty() -> Figure:
    """Intervals of repeated small evaluations of one model, and how they shrink with samples."""
    figure, axes = panels(2, 3.3)
    truth, count, missed = 0.7, 100, 0
    hits = np.random.default_rng(0).binomial(count, truth, 30)
    for place, right in enumerate(hits):
        low, high = wilson(int(right), count)
        colour = GREY if low <= truth <= high else RED
        missed += colour == RED
        axes[0].plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes[0].plot(right / count, place, "o", color=colour, markersize=3)
    axes[0].axvline(truth, color=BLUE, linewidth=1.2)
    axes[0].set_title(f"30 samples of 100: {missed} intervals miss")
    axes[0].set_xlabel("accuracy with its 95 % interval")
    axes[0].set_yticks([])
    sizes = np.unique(np.logspace(1.3, 4.3, 40).astype(int))
    ends = np.array([wilson(round(truth * n), int(n)) for n in sizes])
    axes[1].fill_between(sizes, *ends.T, color=BLUE, alpha=0.25)
    axes[1].axhline(truth, color=BLUE)
    axes[1].set_xscale("log")
    axes[1].set_title("the interval around 70 %")
    axes[1].set_xlabel("pictures")
    return figure


def caching() -> Figure:
    """Which pairs a loss sees: separate micro-batches, and the cached whole."""
    figure, axes = panels(3, 2.9)
    blocks = np.kron(np.eye(4), np.ones((3, 3)))
    shown = (
        ("one batch of 12:\n144 pairs", np.ones((12, 12))),
        ("4 micro-batches added up:\n36 pairs", blocks),
        ("4 cached micro-batches:\n144 pairs", np.ones((12, 12))),
    )
    for place, (title, seen) in zip(axes, shown, strict=True):
        cells(place, seen * 0.45 + np.eye(12) * 0.6 * seen)
        place.set_title(title)
        bare(place)
        if place is not axes[0]:
            for edge in (2.5, 5.5, 8.5):
                place.axhline(edge, color=RED, linewidth=1)
                place.axvline(edge, color=RED, linewidth=1)
    axes[0].set_ylabel("pictures")
    for place in axes:
        place.set_xlabel("texts")
    return figure


def convolution() -> Figure:
    """A scene under masks; the last two differ only in whether the mask was turned."""
    pixels = scene(3, size=64).pixels
    sobel = parse_filter("sobel-x")
    shown = (
        ("a picture", pixels),
        ("gaussian:1.5", filter_picture(pixels, parse_filter("gaussian:1.5"))[0]),
        ("sharpen", filter_picture(pixels, parse_filter("sharpen"))[0]),
        ("sobel-x, the formula", filter_picture(to_grey(pixels), sobel, shown="offset")[0]),
        ("sobel-x, not turned",
         filter_picture(to_grey(pixels), sobel, shown="offset", correlation=True)[0]),
    )  # fmt: skip
    figure, axes = panels(5, 1.6)
    for place, (title, picture) in zip(axes, shown, strict=True):
        place.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        place.set_title(title, fontsize=9)
        bare(place)
    return figure


def features() -> Figure:
    """Pieces that excite units of the first and of the last block of the bundled model most."""
    model = load("park-siglip", dtype="float32")
    blocks = layer_names(model)
    found = find_features(
        model, [drawn.image for drawn in ParkScenes("test", 0, 300)],
        [blocks[0], blocks[-1]], units=4, best=7,
    )  # fmt: skip
    sheets = [np.asarray(layer_sheet(layer, side=48)) for layer in found.layers]
    sheet = np.concatenate(sheets)
    height, width = sheet.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI))
    figure.figimage(sheet)
    return figure


def explain() -> Figure:
    """One scene explained by each method, by a trained network and by one drawn at random."""
    model = load("park-siglip", dtype="float32")
    drawn = load("park-siglip", dtype="float32")
    generator = torch.Generator().manual_seed(0)
    for parameter in drawn.network.image.parameters():
        spread = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    pixels, cat, lamp = scene(5, "test").pixels, "a green cat", "a red lamp"
    asked = [(cat, "gradient"), (lamp, "gradient"), (cat, "occlusion"), (cat, "rollout")]
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots(2, 1 + len(asked))
    for row, network, name in zip(
        axes, (model, drawn), ("trained", "drawn at random"), strict=True
    ):
        row[0].imshow(pixels, interpolation="nearest")
        row[0].set_ylabel(name)
        for place, (text, method) in zip(row[1:], asked, strict=True):
            heat = network.explain(pixels, text, method)
            place.imshow(heat_overlay(pixels, heat), interpolation="nearest")
            words = "any text" if method == "rollout" else text
            place.set_title(f"{method}\n{words}" if network is model else "", fontsize=9)
        for place in row:
            bare(place)
    return figure


def generation() -> Figure:
    """One distribution as it is drawn from, and a choice where greedy misses the likeliest text."""
    ranked = torch.tensor([[2.6, 2.1, 1.3, 1.1, 0.6, 0.2, 0.0, -0.4, -0.7, -1.0]])
    kinds = {
        "temperature 1": ranked,
        "temperature 0.5": ranked / 0.5,
        "top_k 3": shortlist(ranked, 3, None)[0],
        "top_p 0.8": shortlist(ranked, None, 0.8)[0],
    }
    figure, axes = panels(2, 3.0, gridspec_kw={"width_ratios": [1.35, 1]})
    for offset, (name, scores), colour in zip(
        (-0.3, -0.1, 0.1, 0.3), kinds.items(), (GREY, BLUE, GREEN, RED), strict=True
    ):
        shares = scores.softmax(dim=1)[0].numpy()
        axes[0].bar(np.arange(len(shares)) + offset, shares, 0.2, color=colour, label=name)
    axes[0].set_xlabel("tokens, likeliest first")
    axes[0].set_title("probability of being drawn")
    axes[0].legend(frameon=False, fontsize=9)
    tree = {"red": (0.40, {"bench": 0.53, "boat": 0.47}), "boat": (0.33, {"": 1.0})}
    places = iter(range(3, 0, -1))
    for first, (share, following) in tree.items():
        for second, then in following.items():
            height, whole = next(places), share * then
            colour = BLUE if first == "boat" else RED if second == "bench" else GREY
            axes[1].barh(height, whole, 0.5, color=colour)
            sum_of = f"{share:.2f} x {then:.2f} = {whole:.2f}"
            axes[1].text(0.01, height + 0.33, f"a {first} {second}   {sum_of}", fontsize=9)
    axes[1].set_title("greedy (red) and the likeliest (blue)")
    axes[1].set_yticks([])
    axes[1].set_ylim(0.5, 3.8)
    axes[1].set_xlim(0, 0.45)
    axes[1].set_xlabel("probability of the text")
    return figure


class Chain:
    """A network whose next token depends on the last one alone: begin, end, red, ball, bench."""

    odds = torch.tensor([
        [0, 0, 0.60, 0.05, 0.35], [0, 1, 0, 0, 0], [0, 0.20, 0, 0.80, 0], [0, 0.90, 0.05, 0, 0.05],
        [0, 0.95, 0.05, 0, 0],
    ])  # fmt: skip

    def __init__(self, lengths: torch.Tensor | None = None) -> None:
        self.lengths = torch.zeros(1, dtype=torch.int64) if lengths is None else lengths

    def select(self, rows: torch.Tensor) -> Chain:
        return Chain(self.lengths[rows])

    def prefill(self, prompt: Prompt, room: int) -> tuple[torch.Tensor, Chain]:
        return self.odds[prompt.ids[:, -1]].log(), Chain(prompt.mask.sum(dim=1))

    def extend(
        self, ids: torch.Tensor, cache: Chain, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.odds[ids].log()


def answers() -> Figure:
    """Given answers compared by the probability of their words, and of their words and the end."""
    begin = torch.zeros(1, 1, dtype=torch.int64)
    prompt = Prompt(begin, torch.ones_like(begin, dtype=torch.bool))
    given = {"red": [2], "red ball": [2, 3], "bench": [4]}
    figure, axes = panels(1, 2.6)
    for offset, end, colour, name in ((0.2, None, GREY, "words"), (-0.2, 1, BLUE, "words and end")):
        (scored,) = scoring.score(Chain(), prompt, [list(given.values())], end)
        shares = [float(np.exp(one.total)) for one in scored]
        places = np.arange(len(given))[::-1] + offset
        axes[0].barh(places, shares, 0.36, color=colour, label=name)
        for place, share in zip(places, shares, strict=True):
            axes[0].text(share + 0.01, place, f"{share:.2f}", va="center", fontsize=9)
    axes[0].set_yticks(range(len(given)), list(given)[::-1])
    axes[0].set_xlim(0, 0.7)
    axes[0].set_xlabel("probability of the answer")
    axes[0].legend(frameon=False, fontsize=9)
    return figure


def boxes_and_masks() -> Figure:
    """What is written about the square that the network sees, put back into a wide picture."""
    parks = [scene(9), scene(12)]
    side = parks[0].pixels.shape[0]
    wide = np.concatenate([park.pixels for park in parks], axis=1)
    truth = []
    for number, park in enumerate(parks):
        for thing in park.objects:
            mask = np.zeros(wide.shape[:2], bool)
            mask[:, number * side : (number + 1) * side] = thing.mask
            x1, y1, x2, y2 = thing.box
            box = (x1 + number * side, y1, x2 + number * side, y2)
            truth.append(Segment(thing.name, None, box, mask))
    text = write_paligemma([Place(one.label, one.box) for one in truth], wide.shape[:2])
    square = np.asarray(Image.fromarray(wide).resize((side, side), Image.Resampling.BICUBIC))
    seen = parse_paligemma(text, (side, side)).places
    back = parse_paligemma(text, wide.shape[:2]).places
    figure, axes = panels(2, 3.0, gridspec_kw={"width_ratios": [1, 2]})
    found = [Detection("", None, each.box) for each in seen if each.box]
    axes[0].imshow(marked(square, found), interpolation="nearest")
    axes[0].set_title("what the network sees")
    cut = [
        Segment(each.label, None, each.box, one.mask)
        for each, one in zip(back, truth, strict=True)
        if each.box
    ]
    axes[1].imshow(marked(wide, cut), interpolation="nearest")
    axes[1].set_title("the same tokens in the original")
    for each in axes:
        bare(each)
    return figure


def coordinates() -> Figure:
    """The same tokens, read as they were written and with the axes exchanged."""
    park = scene(9)
    size = park.pixels.shape[0], park.pixels.shape[1]
    text = write_paligemma([Place(thing.name, thing.box) for thing in park.objects], size)
    exchanged = replace(PALIGEMMA, order=("x1", "y1", "x2", "y2"))
    figure, axes = panels(2, 3.6)
    for place, convention, title in (
        (axes[0], PALIGEMMA, "read as y1 x1 y2 x2"),
        (axes[1], exchanged, "the same tokens as x1 y1 x2 y2"),
    ):
        read = parse_paligemma(text, size, convention)
        found = [Detection(each.label, None, each.box) for each in read.places if each.box]
        place.imshow(marked(park.pixels, found), interpolation="nearest")
        place.set_title(title)
        bare(place)
    return figure


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "convolution": convolution,
    "features": features,
    "patches": patches,
    "positions": positions,
    "masks": masks,
    "prefix": prefix,
    "softmax": contrastive,
    "sigmoid": sigmoid,
    "locked": locked,
    "zeroshot": zeroshot,
    "scores": scores,
    "ties": ties,
    "precision": precision,
    "lora": low_rank,
    "generation": generation,
    "answers": answers,
    "boxes-and-masks": boxes_and_masks,
    "honesty": honesty,
    "caching": caching,
    "explain": explain,
    "coordinates": coordinates,
}
