"""Stage segment: fine-tune SAM 2.1 on the annotated photographs and compare it with the baselines, held out.

The result is used for masks only if it is not worse than the best baseline by more than 0.005 IoU.
"""

import argparse
import hashlib
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from defectflow.config.code_hash import code_hash
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.arguments import add_device, add_seed, add_threads
from defectflow.core.batch_sizes import batch_size
from defectflow.core.files import UserError, atomic, sha256_of, stage, write_json
from defectflow.data.annotated_pairs import Annotated, read_annotated
from defectflow.images.bit_depth import add_option
from defectflow.parts.part_model import Prior, iou_summary
from defectflow.parts.registration_frame import iou
from defectflow.segmentation.segmenters import Sam

BASELINES = ("template", "constant", "appearance")
TOLERANCE = 0.005  # IoU by which SAM may be worse than the best baseline and still be used
NEGATIVE_SHARE = 0.15  # of training items without the part
PRIOR_WEIGHTS = (
    0.0,
    0.5,
    1.0,
    2.0,
    4.0,
)  # candidate weights of the prior's logits relative to SAM's, chosen on the validation set
BATCH = 4  # photographs per step for which the steps and rates of config.yaml were chosen
# Assumed memory per photograph in a step at 1024 pixels: decoder and neck only, or the whole model.
STEP_BYTES = (2 * 2**30, 10 * 2**30)
WEAK_SHARE = 0.1  # of training prompts that imitate a failed registration


def choose(report: dict[str, Any]) -> str:
    """The segmenter to use: "sam2.1", or the best baseline if SAM is worse by more than TOLERANCE or unmeasured."""
    means = {name: report[name]["iou_mean"] for name in ("sam2.1", *BASELINES) if name in report}
    if None in means.values():
        return "template"
    baseline = max((name for name in BASELINES if name in means), key=lambda name: means[name])
    return "sam2.1" if means["sam2.1"] >= means[baseline] - TOLERANCE else baseline


def baselines(prior: Prior, train: list[Annotated], held_out: list[Annotated]) -> dict[str, dict[str, float]]:
    """IoU by image_id of the baselines' masks, made only from the training photographs."""
    from defectflow.segmentation.sam_cases import sources

    names = [name for name in BASELINES if name != "appearance" or prior.heads]
    result: dict[str, dict[str, float]] = {name: {} for name in names}
    for item in held_out:
        image, truth, out = item.image(), item.mask(), sources(prior, train, item.image_id)
        soft = {"constant": prior.constant(truth.shape, out)}
        soft["template"] = prior.template(prior.register(image, out), truth.shape)[0]
        if prior.heads:
            soft["appearance"] = prior.guess(image, out).soft
        for name, guess in soft.items():
            result[name][item.image_id] = iou(prior.clean(guess >= 0.5), truth)
    return result


def with_settings(args: argparse.Namespace) -> argparse.Namespace:
    """``args`` extended by the values of ``--settings``: everything that the training needs in one namespace."""
    settings = read_settings(args.settings, Sam, "segment")
    values = {"augmentations": 0, "patience": 0} | settings.read_by("segment")  # not used by the official trainer
    return argparse.Namespace(**{**vars(args), **values, "model_config": values.pop("model")})


def batch_of(args: argparse.Namespace) -> int:
    """Photographs per step: as set, or BATCH, or fewer if the GPU's memory is too small. Affects the result."""
    from defectflow.core.device import pick_device

    return batch_size(args.batch_size, pick_device(args.device), STEP_BYTES[args.trainable == "all"], BATCH)


def start_of(args: argparse.Namespace) -> str | Path | None:
    """Weights to start from: the given checkpoint, the packaged ones of `nano`, or None."""
    from defectflow.segmentation import sam_model

    return args.checkpoint or sam_model.PACKAGED.get(args.model_config)


class Run:
    """One model on one data set: its cases, features, batches and scores."""

    def __init__(self, args: argparse.Namespace, parts: dict[str, list[Annotated]], prior: Prior, trainable: str):
        from defectflow.core.device import pick_device
        from defectflow.parts import training_cases
        from defectflow.segmentation import sam_cases, sam_model
        from defectflow.segmentation.sam_training import TRAINABLE

        assert trainable in TRAINABLE
        self.args, self.parts, self.prior, self.trainable = args, parts, prior, trainable
        self.device = pick_device(args.device)
        self.model = sam_model.build(args.model_config, start_of(args), args.seed).to(self.device)
        size = self.model.image_size
        self.cases = {
            part: [
                sam_cases.make_case(a, prior, sam_cases.sources(prior, parts["train"], a.image_id), size) for a in items
            ]
            for part, items in parts.items()
        }
        self.negative, self.negative_images = sam_cases.negatives(
            parts["train"], self.cases["train"], prior, args.table, size, args.seed, args.depth
        )
        # If registration does not find the part, it may be in any orientation.
        self.turn = 5.0 if prior.info["registers"] else 180.0
        # The training cases in the order of the cache: the original cases, their augmented copies, the negatives.
        self.pool = list(self.cases["train"])
        if trainable != "all":
            for copy in range(args.augmentations):
                for index, case in enumerate(self.cases["train"]):
                    rng = np.random.default_rng([args.seed, 3, copy, index])
                    self.pool.append(training_cases.augmented(case, rng, self.turn))
        self.positives = len(self.pool)
        self.pool += self.negative
        self.caches: dict[str, Any] = {}

    def start_features(self, image: np.ndarray) -> list[Any]:
        """Cache entry for uint8 (1, size, size, 3): decoder features, or trunk maps if the neck is trained."""
        import torch

        from defectflow.core.device import autocast
        from defectflow.segmentation import sam_model

        with torch.no_grad(), autocast(self.device):
            tensor = sam_model.to_tensor(image, self.device)
            if self.trainable == "decoder":
                return sam_model.encode(self.model, tensor)
            maps: list[Any] = self.model.image_encoder.trunk(tensor)
            return maps

    def open(self, stack: ExitStack, folder: Path) -> None:
        """Fill the feature caches; does nothing if the whole model is trained."""
        from defectflow.segmentation.sam_cases import cached

        if self.trainable != "all":
            for part, cases in {**self.cases, "train": self.pool}.items():
                self.caches[part] = stack.enter_context(cached(cases, self.start_features, folder, part))

    def features(self, part: str, cases: list[Any], indices: list[int]) -> list[Any]:
        """Decoder features of some cases of ``part``, computed or from the cache; differentiable for trained parts."""
        from defectflow.segmentation import sam_model

        if self.trainable == "all":
            return sam_model.encode(self.model, sam_model.to_tensor(np.stack([c.image for c in cases]), self.device))
        kept = self.caches[part].get(indices, self.device)
        return kept if self.trainable == "decoder" else sam_model.neck_features(self.model, kept)

    def batch_at(self, step: int, rng: np.random.Generator) -> Any:
        """A random training batch; see :func:`sam_training.train`."""
        from defectflow.core.device import autocast
        from defectflow.parts.training_cases import augmented
        from defectflow.segmentation import sam_model
        from defectflow.segmentation.sam_training import Batch

        indices = [
            int(self.positives + rng.integers(len(self.negative)))
            if self.negative and rng.random() < NEGATIVE_SHARE
            else int(rng.integers(self.positives))
            for _ in range(self.args.batch_size)
        ]
        cases = [self.pool[i] for i in indices]
        if self.trainable == "all":
            cases = [augmented(case, rng, self.turn) for case in cases]
        size = self.model.image_size
        prompts = [
            sam_model.make_prompt(case.soft, size, rng)
            if case.registered and rng.random() >= WEAK_SHARE
            else sam_model.make_prompt(grid_constant(self.prior), size, rng, registered=False)
            for case in cases
        ]
        with autocast(self.device):
            features = self.features("train", cases, indices)
        truth, present = np.stack([c.truth for c in cases]), np.array([c.present for c in cases])
        return Batch(features, prompts, truth, present)

    def predict(self, part: str, prior_weight: float = 0.0) -> dict[str, float]:
        """IoU by image_id at full resolution, with the prompts and the clean-up of the stage masks."""
        import torch

        from defectflow.core.device import autocast
        from defectflow.segmentation import sam_model

        result = {}
        for index, (item, case) in enumerate(zip(self.parts[part], self.cases[part], strict=True)):
            prompt = sam_model.make_prompt(case.soft, self.model.image_size, registered=case.registered)
            with torch.no_grad(), autocast(self.device):
                logits, _, _ = sam_model.decode(self.model, self.features(part, [case], [index]), [prompt])
            truth, weight = item.mask(), prior_weight if case.registered else 0.0
            mask = sam_model.full_size(sam_model.with_prior(logits[0], case.soft, weight), truth.shape)
            result[item.image_id] = iou(self.prior.clean(mask), truth)
        return result

    def choose_prior_weight(self) -> float:
        """The value of PRIOR_WEIGHTS with the largest IoU on the validation photographs; 0 without any."""
        if not self.parts["val"]:
            return 0.0
        means = [float(np.mean(list(self.predict("val", weight).values()))) for weight in PRIOR_WEIGHTS]
        return PRIOR_WEIGHTS[int(np.argmax(means))]

    def validate(self) -> float | None:
        """Mean IoU on the validation photographs, None without any."""
        values = list(self.predict("val").values())
        return float(np.mean(values)) if values else None


def grid_constant(prior: Prior) -> np.ndarray:
    """Mean annotated mask resized to the training grid; source of the box of the weak prompt."""
    from defectflow.parts.training_cases import grid

    return grid(prior.mean_label())


def main(args: argparse.Namespace) -> None:
    """Fine-tune, choose by validation, evaluate on the test photographs, write the model and its report."""
    from defectflow.segmentation import sam_model, sam_official

    args = with_settings(args)
    sam_model.config_path(args.model_config)
    annotated = read_annotated(args.pairs, args.table, args.splits)
    prior = Prior.load(args.prior)
    parts = {name: [a for a in annotated if a.split == name] for name in ("train", "val", "test")}
    if not parts["train"]:
        raise UserError(f"{args.splits}: no annotated image is in training (annotate more, or use segmenter=template)")
    official = args.engine == "official"
    if official and not args.checkpoint:
        raise UserError(
            "engine official: needs --checkpoint (from scratch its IoU prediction does not train; use engine lean)"
        )
    if official:
        sam_official.check_extras()
    trainable = args.trainable
    args.batch_size = batch_of(args)
    start = start_of(args)
    if not start:
        # A random encoder is poor, but its features are cached: on a CPU a step takes a twentieth of the time of "all".
        kept = "" if trainable == "all" else f", and what trainable: {trainable} does not train stays random"
        print(f"segment: no checkpoint given: the model is trained from scratch{kept}", file=sys.stderr)
    import torch

    from defectflow.core.device import keep_memory

    torch.set_num_threads(max(1, min(args.threads, torch.get_num_threads())))
    keep_memory()
    base = sha256_of(start) if start and Path(start).is_file() else None
    settings = {
        "engine": args.engine,
        "config": args.model_config,
        "base_checkpoint_sha256": base,
        "from_scratch": base is None,
        "trainable": trainable,
        "seed": args.seed,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "augmentations": args.augmentations,
    }
    # The official trainer has no feature cache: each evaluated photograph is encoded once, as with "all".
    run = Run(args, parts, prior, "all" if official else trainable)
    with ExitStack() as stack:
        if official:
            progress = sam_official.fine_tune(args, [a.pair.name for a in parts["train"]], run.model)
        else:
            progress = lean(run, stack, settings)
        held_out = "test" if parts["test"] else "val"
        groups, prior_weight = {a.image_id: a.group for a in annotated}, run.choose_prior_weight()
        report = {
            **settings,
            "prior_weight": prior_weight,
            "held_out": held_out,
            "images": {name: len(items) for name, items in parts.items()},
            "negatives": {"photographs": run.negative_images, "total": len(run.negative)},
            "sam2.1": iou_summary(run.predict(held_out, prior_weight), groups),
            "sam2.1_without_prior": iou_summary(run.predict(held_out), groups),
        }
    for name, values in baselines(prior, parts["train"], parts[held_out]).items():
        report[name] = iou_summary(values, groups)
    report |= {"use": choose(report), **progress}
    with atomic(args.out) as temporary:
        state = {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}
        # A stream, not a path: torch would write the file name into the file.
        with open(temporary, "wb") as stream:
            torch.save({"model": state}, stream)
        sam_model.verify(temporary, args.model_config)
    write_json(args.report, report)
    told = ", ".join(f"{name} {report[name]['iou_mean']}" for name in ("sam2.1", *BASELINES) if name in report)
    print(f"segment: IoU on {held_out} photographs: {told}; {report['use']} will be used for masks", file=sys.stderr)


def lean(run: Run, stack: ExitStack, settings: dict[str, Any]) -> dict[str, Any]:
    """Train with the lean loop; returns best step and curve for the report."""
    from defectflow.segmentation.sam_training import DECODER_RATE, SCRATCH_RATE, Plan, train

    args = run.args
    scratch = settings["from_scratch"]
    rate = args.learning_rate or (SCRATCH_RATE if scratch else DECODER_RATE)
    plan = Plan(
        settings["trainable"], args.steps, rate, scratch, args.seed, args.evaluate_every, args.patience, args.save_every
    )
    run.open(stack, Path(args.out).parent)
    names = {part: [a.image_id for a in items] for part, items in run.parts.items()}
    fingerprint = {**settings, "learning_rate": rate, "images": names, "plan": vars(plan), "made_from": made_from(args)}
    state = Path(args.out).with_suffix(".state.pt")
    progress = train(run.model, plan, run.batch_at, run.validate, state, args.resume, fingerprint)
    return {"learning_rate": rate, "best_step": progress.best_step, "curve": progress.curve}


def made_from(args: argparse.Namespace) -> str:
    """Hash of all that a training starts from but its settings: files, start weights, code. 64 hex digits."""
    files = [args.table, args.splits, args.prior, args.checkpoint]
    paths = [Path(file) for file in files if file] + sorted(Path(args.pairs).iterdir())
    digest = hashlib.sha256(code_hash("segmentation.segment").encode())
    for path in paths:
        digest.update(f"{path.name}\n{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.segmentation.segment", description=__doc__)
    parser.add_argument("--pairs", required=True, help="folder of jpg + json pairs")
    parser.add_argument("--table", required=True, help="pairs.csv")
    parser.add_argument("--splits", required=True, help="splits.csv")
    parser.add_argument("--prior", required=True, help="prior.safetensors")
    parser.add_argument(
        "--checkpoint", help="local file to start from (default: the included weights for nano, otherwise from scratch)"
    )
    add_settings(parser, Sam, "segment")
    parser.add_argument("--evaluate-every", type=int, default=50, help="steps between validations")
    parser.add_argument("--save-every", type=int, default=100, help="steps between saved states")
    parser.add_argument("--resume", action="store_true", help="continue from OUT's .state.pt if it is of this training")
    add_seed(parser)
    add_device(parser)
    add_option(parser)
    add_threads(parser, 2)
    parser.add_argument("--out", required=True, help='model.pt, {"model": state_dict}')
    parser.add_argument("--report", required=True, help="train.json")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
