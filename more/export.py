"""Write a language model as a folder that Hugging Face's transformers opens, without this project.

    python more/export.py --checkpoint_path checkpoints/more_a_rec4/final_model.pth --output_dir exported/more_a_rec4
    python more/export.py --checkpoint_path PATH --output_dir exported/model --overwrite --lm_eval_task tasks

`AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` opens it; its README.md says how.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "more.export", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from more.commands import export

    sys.exit(export())
