"""Annotations held against the files that they are about: `rlvtg data check`, and what every run does first.

Every distinct video is read once, without decoding a picture, before a model loads. A row whose video cannot be read,
or is not the video that the row describes, is a bad row: counted, listed with its reason, never given another video.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from rlvtg.data import tiny
from rlvtg.data.check import Fault, check, find_faults
from rlvtg.data.duration import filled
from rlvtg.data.inverse import inverse_samples
from rlvtg.data.read import read
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Recipe, data_of, tasks_of
from rlvtg.text.verbs import Tagger
from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import END_SLACK
from rlvtg.video.index import WINDOW, VideoError
from rlvtg.video.sampling import FRAMES_PER_PATCH
from rlvtg.video.scan import Probes, for_each_video, read_probes, scan, write_probes
from rlvtg.video.store import clip_store
from rlvtg.video.worker import DecodeWorker, Probe

DURATION = "duration differs"
PROBES = "videos.jsonl"  # in a run's folder: what every video file says of itself
Cut = tuple[str, float | None, float | None]  # a file and the window of it that is shown


def usable_samples(
    recipe: Recipe,
    name: str,
    probes: Probes,
    listed: str | os.PathLike[str] | None,
    *,
    decode: bool = False,
) -> list[Sample]:
    """The good samples of `recipe.data[name]`, windows of files that are already cut taken away.

    Args:
        recipe: a loaded recipe.
        name: a key of its data.
        probes: what is known of the videos; gets what is read now.
        listed: where the bad rows are written.
        decode: decode every clip too; what a header hides becomes a bad row before training, and not a run that stops
            in its midst.

    Raises DataError, which names the data, as `rlvtg.data.check.check` does.
    """
    try:
        samples = read(recipe.data[name])
        # What the annotations alone have wrong stops a run before any file is read.
        check(samples, max_bad_fraction=recipe.max_bad_fraction, bad_rows_path=listed, filled=False)
        settled, faults = held_against_files(samples, recipe, probes, decode=decode)
        return check(settled, max_bad_fraction=recipe.max_bad_fraction, bad_rows_path=listed, file_faults=faults)
    except DataError as error:
        raise DataError(f"data.{name}: {error}") from error


def segments(
    samples: Sequence[Sample],
    inverse: str,
    recipe: Recipe,
    probes: Mapping[str, Probe | VideoError],
    tagger: Tagger | None = None,
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """What `rlvtg.data.inverse.inverse_samples` makes for the task `inverse`, from samples without a fault.

    Segments are widened to one temporal patch of frames that differ: two at the recipe's fps, or at the file's own if
    that is lower.
    """
    made: list[Sample] = []
    left_out: list[tuple[str, str]] = []
    for sample in samples:
        found = probes.get(sample.video)
        rate = found.frames / found.duration if isinstance(found, Probe) else recipe.video.fps
        shortest = FRAMES_PER_PATCH / min(recipe.video.fps, rate)
        new, without = inverse_samples([sample], tasks=(inverse,), shortest=shortest, tagger=tagger)
        made += new
        left_out += without
    return made, left_out


def held_against_files(
    samples: Sequence[Sample], recipe: Recipe, probes: Probes, *, decode: bool = False
) -> tuple[list[Sample], list[Fault | None]]:
    """The samples as their files want them, and what is wrong with each; reads the files that `probes` does not know.

    `probes` gets what was read. A duration that the annotation does not give is the file's. With `decode`, every clip
    is decoded too.
    """
    there = [sample.video for sample in samples if os.path.isfile(sample.video)]
    probes.update(scan(there, timeout=recipe.video.decode_timeout, known=probes))
    lengths = {video: found.duration for video, found in probes.items() if isinstance(found, Probe)}
    samples = filled(samples, lengths)
    if decode:
        decode_all(*_settled(samples, recipe, probes), recipe, probes)
    return _settled(samples, recipe, probes)


def _settled(samples: Sequence[Sample], recipe: Recipe, probes: Probes) -> tuple[list[Sample], list[Fault | None]]:
    settled: list[Sample] = []
    faults: list[Fault | None] = []
    for sample in samples:
        result = settle(sample, probes[sample.video], recipe.video.duration_slack) if sample.video in probes else sample
        settled.append(result if isinstance(result, Sample) else sample)
        faults.append(None if isinstance(result, Sample) else result)
    return settled, faults


def settle(sample: Sample, found: Probe | VideoError, slack: float) -> Sample | Fault:
    """The sample, without its window if the file is already cut to it, or what is wrong with it.

    `slack` is in seconds. A file that is as long as the window, but ends before the window does, was cut to it: cutting
    it again would show other seconds than the annotated ones. Where the length of the file does not say whether it is
    cut, the row is bad.
    """
    if isinstance(found, VideoError):
        return found.kind, found.reason
    length = found.duration
    if sample.video_start is None and sample.video_end is None:
        if abs(length - sample.duration) > slack:
            return DURATION, f"the file lasts {length:.2f} s, its annotation says {sample.duration:g} s"
        return sample
    start = sample.video_start or 0.0
    end = start + sample.duration if sample.video_end is None else sample.video_end
    window = f"the window {start:g} to {end:g} s"
    if abs(end - start - sample.duration) > slack:
        return DURATION, f"{window} lasts {end - start:g} s, its annotation says {sample.duration:g} s"
    holds, is_cut = end <= length + END_SLACK, abs(length - (end - start)) <= slack
    if holds and is_cut and start > END_SLACK:
        return WINDOW, f"the file lasts {length:.2f} s: it may hold {window}, or be cut to it"
    if holds:
        return sample
    if is_cut:
        return replace(sample, video_start=None, video_end=None)
    return WINDOW, f"the file lasts {length:.2f} s: it neither holds {window} nor is it cut to it"


def check_recipe(recipe: Recipe, *, decode: bool = False, folder: str | os.PathLike[str] | None = None) -> int:
    """Print what is wrong with the rows that a recipe uses, by reason, without training; `rlvtg data check`.

    Args:
        recipe: a loaded recipe. The demo's data is made if it is absent.
        decode: decode every clip too, into the recipe's cache on disk. Finds damage inside the pictures, and takes as
            long as a run's first epoch takes to decode.
        folder: where `bad_rows.<data>.jsonl` is written; default the recipe's output_dir.

    Returns:
        The exit status: 0, or 1 when a run would stop because its bad rows are more than `max_bad_fraction`.
    """
    make_demo(recipe)
    folder = Path(recipe.output_dir if folder is None else folder)
    folder.mkdir(parents=True, exist_ok=True)
    probes = read_probes(folder / PROBES, again=True)
    status = 0
    good: dict[str, list[Sample]] = {}
    for name in data_of(recipe):
        try:
            samples = read(recipe.data[name])
        except DataError as error:
            raise DataError(f"data.{name}: {error}") from error
        settled, faults = held_against_files(samples, recipe, probes, decode=decode)
        listed = folder / f"bad_rows.{name}.jsonl"
        found = list(find_faults(settled, faults))
        _print(name, samples, settled, found, probes)
        try:
            good[name] = check(
                settled, max_bad_fraction=recipe.max_bad_fraction, bad_rows_path=listed, file_faults=faults
            )
            verdict = "a run goes on without them" if any(found) else "nothing is wrong"
        except DataError:
            status, verdict = 1, f"a run stops: max_bad_fraction is {recipe.max_bad_fraction:g}"
        print(f"  {verdict}; listed in {listed}")
    _check_segments(recipe, good, probes, decode=decode)
    write_probes(folder / PROBES, probes)
    return status


def _check_segments(recipe: Recipe, good: Mapping[str, list[Sample]], probes: Probes, *, decode: bool) -> None:
    """Print how many segments the inverse tasks show, and which of them cannot be decoded."""
    for name, stage in recipe.stages.items():
        for key, task in tasks_of(recipe, stage).items():
            samples = good.get(str(task.data))
            if task.inverse is None or samples is None:
                continue
            made, left_out = segments(samples, task.inverse, recipe, probes)
            print(f"stages.{name}.tasks.{key}: {len(made)} segments from {len(samples)} rows of data.{task.data}")
            _print_counts(left_out)
            errors = decoded(map(cut, made), recipe) if decode else {}
            _print_counts([(sample.id, errors[cut(sample)].kind) for sample in made if cut(sample) in errors])


def _print_counts(reasons: Sequence[tuple[str, str]]) -> None:
    for reason, count in Counter(reason for _, reason in reasons).most_common():
        first = next(name for name, other in reasons if other == reason)
        print(f"  {count:6d}  {reason}, e.g. {first}")


def make_demo(recipe: Recipe) -> None:
    """Make the demo's videos and annotations if the recipe wants them and they are absent."""
    if recipe.tiny is not None:
        sizes = {split: getattr(recipe.tiny, split) for split in tiny.SPLITS}
        tiny.make(recipe.tiny.folder, sizes, seed=recipe.tiny.seed, appearances=recipe.tiny.appearances)


def decode_all(samples: Sequence[Sample], faults: Sequence[Fault | None], recipe: Recipe, probes: Probes) -> None:
    """Decode every distinct clip of the samples without a fault, as `decoded` does.

    A video that cannot be decoded is so noted in `probes`.
    """
    there = [
        cut(sample) for sample, fault in zip(samples, faults, strict=True) if fault is None and sample.video in probes
    ]
    for (video, _, _), error in decoded(there, recipe).items():
        probes[video] = error


def cut(sample: Sample) -> Cut:
    """The part of a file that a sample is about."""
    return sample.video, sample.video_start, sample.video_end


def decoded(cuts: Iterable[Cut], recipe: Recipe) -> dict[Cut, VideoError]:
    """What is wrong with each distinct clip that cannot be decoded; several videos are decoded at once, into the
    recipe's cache on disk. What the cache holds already is left as it is."""
    of_video: dict[str, list[Cut]] = {}
    for each in dict.fromkeys(cuts):
        of_video.setdefault(each[0], []).append(each)
    store, factor = clip_store(recipe), pixel_unit(recipe.model)

    @functools.cache
    def cache(worker: DecodeWorker) -> ClipCache:
        return ClipCache(recipe.video, 0, factor=factor, store=store, worker=worker)

    def decode(video: str, worker: DecodeWorker) -> dict[Cut, VideoError]:
        errors: dict[Cut, VideoError] = {}
        for each in of_video[video]:
            try:
                cache(worker).keep(*each)
            except VideoError as error:
                errors[each] = error
        return errors

    found = for_each_video(list(of_video), decode, "decoding videos")
    return {each: error for errors in found.values() for each, error in errors.items()}


def pixel_unit(model: str) -> int:
    """Frame sides are multiples of this many pixels, by the model's own configuration where `model` is a folder or was
    downloaded before; 28 as in Qwen2.5-VL otherwise. A wrong one would only make a run decode once more."""
    config: object = Path(model) / "config.json"
    if not Path(model).is_dir() and model.count("/") == 1 and model[0] not in "./":
        config = try_to_load_from_cache(model, "config.json")
    if not isinstance(config, str | Path) or not Path(config).is_file():
        return 28
    vision = json.loads(Path(config).read_text(encoding="utf-8")).get("vision_config", {})
    return int(vision.get("patch_size", 14)) * int(vision.get("spatial_merge_size", 2))


def _print(
    name: str,
    samples: Sequence[Sample],
    settled: Sequence[Sample],
    faults: Sequence[Fault | None],
    probes: Mapping[str, Probe | VideoError],
) -> None:
    videos = {sample.video for sample in samples}
    lengths = [found.duration for video in videos if isinstance(found := probes.get(video), Probe)]
    cut = sum(before.video_end is not None and after.video_end is None
              for before, after in zip(samples, settled, strict=True))  # fmt: skip
    bad = [(sample, fault) for sample, fault in zip(samples, faults, strict=True) if fault is not None]
    share = len(bad) / max(1, len(samples))
    print(f"data.{name}: {len(samples)} rows, {len(videos)} videos of {sum(lengths) / 3600:.2f} h; "
          f"{len(bad)} bad rows ({share:.2%})")  # fmt: skip
    if cut:
        print(f"  {cut} rows have a window that their file is already cut to; it is not applied again")
    for reason, count in Counter(fault[0] for _, fault in bad).most_common():
        sample, (_, detail) = next((sample, fault) for sample, fault in bad if fault[0] == reason)
        print(f"  {count:6d}  {reason:24}  e.g. {sample.id}: {detail}")
