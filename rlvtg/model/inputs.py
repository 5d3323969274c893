"""Clip + prompt -> what the model is fed, built once per prompt and the same for every pass.

`Encoder` turns a row into `Inputs` (no padding, no batch); `batch` stacks rows, each with one completion behind its
prompt, into the keyword arguments of one model call.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from transformers import ProcessorMixin
from transformers.video_utils import VideoMetadata

from rlvtg.model.family import Family
from rlvtg.model.features import FeatureCache, content_digests
from rlvtg.model.positions import prompt_positions
from rlvtg.recipe import SECONDS, Video, require_clock
from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import Clip
from rlvtg.video.overlay import numbered
from rlvtg.video.store import ClipStore


@dataclass(frozen=True)
class VideoInputs:
    """One clip as the vision tower takes it: one video, or with stamps in the text one for each temporal patch.

    Attributes:
        pixel_values: (patches, channels * temporal_patch_size * patch_size**2) float32.
        grids: (V, 3) the grid (t, h, w) of each video, in patches.
        seconds_per_grid: V seconds between grid steps.
        starts: V seconds at which each video's first frame is shown.
        stamps: V texts that the model's own processor writes before the videos; none where it writes nothing.
        digests: V digests of the content of each video, for the feature cache; none where there is no cache.
    """

    pixel_values: torch.Tensor
    grids: torch.Tensor
    seconds_per_grid: tuple[float, ...]
    starts: tuple[float, ...]
    stamps: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """One prompt, without padding.

    Attributes:
        input_ids: (P,) token ids, video pads expanded.
        position_ids: (3, P) time, height and width positions.
        labels: (P,) the ids of narrated tokens, which supervised training learns; -100 elsewhere.
        next_position: the position of the first completion token on all three axes.
        video: the pixels, shared between the prompts of one clip.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    next_position: int
    video: VideoInputs


def seconds_per_grid(clip: Clip, family: Family) -> float:
    """Seconds that one temporal patch spans, from the times at which the sampled frames are really shown."""
    return family.temporal_patch_size / clip.fps


def video_inputs(clip: Clip, processor: ProcessorMixin, family: Family, *, time: str) -> VideoInputs:
    """Patches of a clip from the model's own video processor; the frames already have their final size."""
    step = family.temporal_patch_size
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    if len(frames) % step:
        raise ValueError(f"a clip has {len(frames)} frames, which is not a multiple of the temporal patch size {step}")
    is_cut = family.has_stamps(time)
    videos = list(frames.split(step)) if is_cut else [frames]
    pixels = processor.video_processor(
        videos=videos, do_resize=False, do_sample_frames=False, input_data_format="channels_first", return_tensors="pt"
    )
    seconds = seconds_per_grid(clip, family)
    starts = clip.timestamps[::step].tolist() if is_cut else [float(clip.timestamps[0])]
    return VideoInputs(
        pixel_values=pixels["pixel_values_videos"],
        grids=pixels["video_grid_thw"],
        seconds_per_grid=(seconds,) * len(videos),
        starts=tuple(starts),
        stamps=tuple(own_stamps(clip, processor)) if family.writes_stamps else (),
    )


def own_stamps(clip: Clip, processor: ProcessorMixin) -> list[str]:
    """What a processor that stamps temporal patches writes before each of a clip, from the frames' real times."""
    side, step = processor.video_processor.merge_size, processor.video_processor.temporal_patch_size
    # at one frame per second the numbers of frames are seconds
    metadata = VideoMetadata(len(clip.timestamps), fps=1.0, frames_indices=clip.timestamps.tolist())
    one_token_each = torch.tensor([[len(clip.timestamps) // step, side, side]])
    written = processor.replace_video_token({"video_grid_thw": one_token_each, "video_metadata": [metadata]}, 0)
    for wrapper in (processor.vision_start_token, processor.vision_end_token):  # as the chat template writes them too
        written = written.replace(wrapper, "")
    return written.split(processor.video_token)[:-1]


def with_stamps(
    messages: Sequence[Mapping[str, Any]], stamps: Sequence[str], narration: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Messages in which the one video has become a video per stamp, each behind its stamp and before its narration.

    Source: interleaved textual timestamps, TimeLens (arXiv 2512.14698, section 4).
    """
    told = narration or [""] * len(stamps)
    stamped = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            parts: list[dict[str, Any]] = []
            for part in content:
                if part["type"] == "video":
                    for stamp, text in zip(stamps, told, strict=True):
                        parts += [{"type": "text", "text": stamp}, {"type": "video"}]
                        parts += [{"type": "text", "text": text}] if text else []
                else:
                    parts.append(part)
            content = parts
        stamped.append({**message, "content": content})
    return stamped


def narrated(events: Sequence[Mapping[str, Any]], starts: Sequence[float], step: float) -> list[str]:
    """A line of text for each temporal patch: the events that touch its [start, start + step) seconds."""
    lines = []
    for start in starts:
        under_way = [event["text"] for event in events if event["start"] < start + step and event["end"] > start]
        lines.append(f" {', '.join(under_way) or 'nothing'}\n")
    return lines


def prompt_inputs(
    messages: Sequence[Mapping[str, Any]],
    video: VideoInputs,
    processor: ProcessorMixin,
    family: Family,
    *,
    time: str,
    time_format: str | None,
    events: Sequence[Mapping[str, Any]] = (),
) -> Inputs:
    """Token ids and positions of a conversation about one clip, up to where the completion starts.

    Args:
        messages: conversation with one `{"type": "video"}` part.
        video: that part's pixels.
        time: `text` puts a stamp before each temporal patch, as the model's own processor may do anyway; otherwise
            seconds are M-RoPE positions alone.
        time_format: format of a stamp, of its second or of the patch's `index`; None is the processor's own, if any.
        events: with `time: text`, events (`start`, `end`, `text`) to narrate behind each temporal patch, with labels.

    Raises:
        ValueError: the chat template rendered another number of videos than there are.
    """
    narration = narrated(events, video.starts, video.seconds_per_grid[0]) if events else [""] * len(video.grids)
    if family.has_stamps(time):
        wording = time_format if time == "text" else None  # an overlay's is of what it draws
        if wording is None and video.stamps:
            stamps = list(video.stamps)
        else:
            stamps = [(wording or SECONDS).format(start, index=index) for index, start in enumerate(video.starts)]
        messages = with_stamps(messages, stamps, narration if events else ())
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # a pad is a token of its own, so the text between two pads is tokenised as it would be in the whole
    before, *between = text.split(processor.video_token)
    if len(between) != len(video.grids):
        raise ValueError(f"the chat template rendered {len(between)} videos where the prompt has {len(video.grids)}")

    pieces = [(before, False)]  # text, and whether it is to be learned; the last three of each video stand behind it
    for piece, told in zip(between, narration, strict=True):
        head, tail = piece.split(told, 1) if told else (piece, "")
        pieces += [(head, False), (told, True), (tail, False)]
    written = processor.tokenizer([piece for piece, _ in pieces], add_special_tokens=False)["input_ids"]
    merged = (video.grids.prod(dim=1) // family.merge_size**2).tolist()
    ids: list[int] = []
    labels: list[int] = []
    for index, ((_, learned), part) in enumerate(zip(pieces, written, strict=True)):
        if index % 3 == 1:
            pads = merged[index // 3]
            ids += [family.video_token_id] * pads
            labels += [-100] * pads
        ids += part
        labels += part if learned else [-100] * len(part)
    input_ids = torch.tensor(ids)
    position_ids, next_position = prompt_positions(input_ids, video.grids, video.seconds_per_grid, family)
    return Inputs(input_ids, position_ids, torch.tensor(labels), next_position, video)


class Encoder:
    """Rows -> inputs, with the clips and patches of recent videos kept under a byte budget.

    One encoder serves rollout, training and evaluation of a run, so that all of them see the same pixels, stamps and
    positions.

    Args:
        processor: the model's processor.
        family: the model's family.
        settings: the recipe's `video` section.
        max_bytes: budget of the patches kept in memory, and again of the decoded clips.
        store: decoded clips on disk, if they are to be kept.
        features: what the run's models keep of the videos that they have encoded, if they do (`share_vision`).

    Raises:
        RecipeError: a family that is told nothing of seconds with these settings.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        family: Family,
        settings: Video,
        *,
        max_bytes: int = 2 * 2**30,
        store: ClipStore | None = None,
        features: FeatureCache | None = None,
    ) -> None:
        require_clock(family.name, settings.time)
        self.processor, self.family, self.settings, self.features = processor, family, settings, features
        self.clips = ClipCache(settings, max_bytes=max_bytes, factor=family.pixel_unit, store=store)
        self._max_bytes, self._bytes = max_bytes, 0
        self._videos: OrderedDict[tuple[Any, ...], VideoInputs] = OrderedDict()

    def clip(self, row: Mapping[str, Any], settings: Video | None = None) -> Clip:
        """The sampled frames of a row's video; `settings` are the encoder's own unless others are given."""
        return self.clips.get(row["video"], row.get("video_start"), row.get("video_end"), settings)

    def shown(self, row: Mapping[str, Any], settings: Video | None = None) -> Clip:
        """The frames as the model sees them: those of `clip`, with what `time: overlay` draws on them."""
        settings = self.settings if settings is None else settings
        clip = self.clip(row, settings)
        if settings.time != "overlay":
            return clip
        return replace(clip, frames=numbered(clip.frames, clip.timestamps.tolist(), settings.time_format or SECONDS))

    def stamps(self, row: Mapping[str, Any]) -> list[float]:
        """Seconds of the first frame of each temporal patch of a row's video: the finest times the model can tell."""
        return self.clip(row).timestamps[:: self.family.temporal_patch_size].tolist()

    def __call__(self, row: Mapping[str, Any], settings: Video | None = None) -> Inputs:
        """The inputs of a row's prompt.

        Columns: `prompt`, `video`; optional `video_start` and `video_end` (seconds), and `narration` (events).
        `settings` are the encoder's own unless others are given, for one row that is to be sampled otherwise.
        """
        settings = self.settings if settings is None else settings
        return prompt_inputs(
            row["prompt"],
            self._video(row, settings),
            self.processor,
            self.family,
            time=settings.time,
            time_format=settings.time_format,
            events=row.get("narration", ()),
        )

    def _video(self, row: Mapping[str, Any], settings: Video) -> VideoInputs:
        key = (row["video"], row.get("video_start"), row.get("video_end"), *astuple(settings))
        if key not in self._videos:
            video = video_inputs(self.shown(row, settings), self.processor, self.family, time=settings.time)
            if self.features is not None:
                video = replace(video, digests=content_digests(video.pixel_values, video.grids))
            self._videos[key] = video
            self._bytes += video.pixel_values.nbytes
            while self._bytes > self._max_bytes and len(self._videos) > 1:
                _, dropped = self._videos.popitem(last=False)
                self._bytes -= dropped.pixel_values.nbytes
        self._videos.move_to_end(key)
        return self._videos[key]


def batch(
    rows: Sequence[Inputs],
    completions: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    pad_token_id: int,
    prompt_length: int | None = None,
) -> dict[str, Any]:
    """Keyword arguments of one model call over `[prompt, completion]` rows, prompts padded left, completions right.

    Rows that hold the same `Inputs` object share its pixels: these are given once, and `video_rows` says which rows
    they belong to (see `rlvtg.model.vision`).

    Args:
        rows: B prompts.
        completions: (B, C) token ids; C may be 0.
        completion_mask: (B, C) ones where a completion has tokens.
        pad_token_id: fills the padding.
        prompt_length: width of the prompt part; default the longest prompt.

    Returns:
        `input_ids` and `attention_mask` (B, P + C), `position_ids` (3, B, P + C), `pixel_values_videos`,
        `video_grid_thw` and `video_rows` (a list of B lists of indices into the videos); with digests also
        `video_keys`, one for each video.
    """
    width = max(len(row.input_ids) for row in rows) if prompt_length is None else prompt_length
    size, length = completions.shape
    input_ids = torch.full((size, width), pad_token_id)
    attention_mask = torch.zeros((size, width), dtype=torch.long)
    position_ids = torch.zeros((3, size, width + length), dtype=torch.long)
    videos: dict[int, tuple[VideoInputs, list[int]]] = {}
    count = 0
    for index, row in enumerate(rows):
        start = width - len(row.input_ids)
        input_ids[index, start:] = row.input_ids
        attention_mask[index, start:] = 1
        position_ids[:, index, start:width] = row.position_ids
        position_ids[:, index, width:] = row.next_position + torch.arange(length)
        if id(row.video) not in videos:
            videos[id(row.video)] = (row.video, list(range(count, count + len(row.video.grids))))
            count += len(row.video.grids)
    unique = [video for video, _ in videos.values()]
    keys = [digest for video in unique for digest in video.digests]
    device = completions.device
    return {
        "input_ids": torch.cat([input_ids.to(device), completions], dim=1),
        "attention_mask": torch.cat([attention_mask.to(device), completion_mask.to(attention_mask)], dim=1).to(device),
        "position_ids": position_ids.to(device),
        "pixel_values_videos": torch.cat([video.pixel_values for video in unique]).to(device),
        "video_grid_thw": torch.cat([video.grids for video in unique]).to(device),
        "video_rows": [videos[id(row.video)][1] for row in rows],
    } | ({"video_keys": keys} if len(keys) == count else {})
