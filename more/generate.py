"""Let a language model go on with a text: prompt in, text out, as it is written.

    python more/generate.py --checkpoint_path checkpoints/more_a_rec4/final_model.pth "Mary went to the garden."
    python more/generate.py --checkpoint_path PATH "Where is Mary?" "12+30=" --recurrences 1,8      # r of each prompt
    python more/generate.py --checkpoint_path PATH --temperature 0.8 --top_p 0.95 < prompts.txt     # a prompt a line

Without prompts they are read from standard input, a line each; at a terminal that is a conversation, line by line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "more.generate", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from more.commands import generate

    sys.exit(generate())
