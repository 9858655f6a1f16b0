"""Training: one loop for every system.

Everything arrives as callables and an `nn.Module`: the loop owns stages, learning rates, gradient
accumulation, averages, checkpoints, the log and the cost. It must not know any model, task,
metric or recipe; where those meet is `recipes`.
"""

from sightline.core.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "train": "sightline.training.loop",
        "LoopOptions": "sightline.training.loop",
        "RunSummary": "sightline.training.cost",
        "Stage": "sightline.training.stages",
        "Group": "sightline.training.stages",
        "StepResult": "sightline.training.accumulation",
        "WeightedLoss": "sightline.training.accumulation",
        "accumulate": "sightline.training.accumulation",
        "cached_contrastive": "sightline.training.accumulation",
    },
)
