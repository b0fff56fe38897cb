r"""Ask a language model the questions of a bAbI task: a CSV for a judge, and a diagram of one text's routing.

    python more/evaluate_for_llm.py --checkpoint_path checkpoints/more_b_rec4/final_model.pth --babi_task_id 2
    python more/evaluate_for_llm.py --model_type more_b --num_recurrences 4 --checkpoint_path PATH --babi_task_id 2 \
        --output_csv evaluation_results.csv --output_html routing.html

The CSV has a row per question: context, question, true_answer, predicted_answer, is_correct, and more. The page shows
how the tokens of the first question flowed through the experts of all layers, and the same for all that were asked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # run as a file: Python then looks for modules beside it; start again as the project's module
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        command = [sys.executable, "-P", "-m", "more.evaluate_for_llm", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    from more.commands import evaluate_for_llm

    sys.exit(evaluate_for_llm())
