"""vLLM as anybody would use it on an exported folder: greedy answers, without anything of rlvtg in the engine.

Run by tests/test_export.py in a process of its own, for an engine leaves its marks on the one it runs in:
`python -m tests.vllm_plain TASK.json`, where the task has `engines`, each with `model` and perhaps `adapter`, and
`prompts`, each with `token_ids` (one pad for each video), `frames` (the name of an .npy file) and `fps`. The answers
of each engine are written to answers.json beside it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

import numpy as np

import rlvtg  # noqa: F401  (see rlvtg/cpu_only_torch.py)


def answers(model: str, adapter: str | None, prompts: list[dict[str, Any]], forbidden: list[int]) -> list[list[int]]:
    """Token ids of each prompt's greedy answer."""
    from vllm import LLM, ModelRegistry, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

    # else vLLM looks at the class in a process of its own, where torchvision does not load beside a CPU build of torch
    ModelRegistry.register_model("Qwen2_5_VLForConditionalGeneration", Qwen2_5_VLForConditionalGeneration)
    lora = {} if adapter is None else {"enable_lora": True, "max_lora_rank": 8}
    engine = LLM(
        model=model, dtype="float32", max_model_len=256, max_num_seqs=4, enforce_eager=True,
        limit_mm_per_prompt={"image": 0, "video": 1}, mm_processor_kwargs={"do_resize": False}, **lora,
    )  # fmt: skip
    requests = []
    for prompt in prompts:
        frames = np.load(prompt["frames"])
        metadata = {
            "fps": prompt["fps"],
            "duration": len(frames) / prompt["fps"],
            "total_num_frames": len(frames),
            "frames_indices": list(range(len(frames))),
            "video_backend": "none",
            "do_sample_frames": False,
        }
        videos = {"video": [(frames, metadata)]}
        requests.append({"prompt_token_ids": prompt["token_ids"], "multi_modal_data": videos})
    sampling = SamplingParams(temperature=0, max_tokens=10, logit_bias=dict.fromkeys(forbidden, -100.0))
    request = None if adapter is None else LoRARequest("exported", 1, adapter)
    outputs = engine.generate(requests, sampling, lora_request=request, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def main(task: Path) -> None:
    """Answer the prompts of `task` with each of its engines."""
    asked = json.loads(task.read_text())
    found = [
        answers(each["model"], each.get("adapter"), asked["prompts"], asked["forbidden"]) for each in asked["engines"]
    ]
    task.with_name("answers.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
