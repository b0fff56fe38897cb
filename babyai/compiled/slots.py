"""What the vector environment keeps for each slot, whoever plays its level: the actions taken, and what it shows."""

from babyai.compiled.jit import compiled

TOO_NARROW = -2
FINE = -1


@compiled
def note_actions(actions, active, history, taken, num_actions, task_of, counts):
    """Append each active slot's action to its history, or change nothing where one is no action.

    Args:
        actions: int64 (N,).
        active: bool (N,).
        history: uint8 (N, W) actions of the running episodes.
        taken: int64 (N,) how many each has; counted up.
        num_actions: Actions are 0..num_actions - 1.
        task_of: int64 (N,) number of each slot's task.
        counts: int64 (tasks,) steps of each; counted up.

    Returns:
        FINE; the number of a slot with a wrong action; or TOO_NARROW if an episode is longer than W.
    """
    for slot in range(len(active)):
        if active[slot]:
            if actions[slot] < 0 or actions[slot] >= num_actions:
                return slot
            if taken[slot] >= history.shape[1]:
                return TOO_NARROW
    for slot in range(len(active)):
        if active[slot]:
            history[slot, taken[slot]] = actions[slot]
            taken[slot] += 1
            counts[task_of[slot]] += 1
    return FINE


@compiled
def show_slots(
    active, labels, taken, missions, label, task_of, counts, out_active, out_mission, out_start, out_action, out_valid
):
    """Fill arrays of a `VectorStep` that is zero so far.

    Args:
        active: bool (N,).
        labels: int64 (N,) the expert's actions, negative for none.
        taken: int64 (N,) actions in the running episode.
        missions: int64 (N,) numbers of the sentences.
        label: Whether the expert labels at all.
        task_of: int64 (N,) number of each slot's task.
        counts: int64 (tasks,) observations without a label of each; counted up.
        out_active: `VectorStep.active`.
        out_mission: `VectorStep.mission_id`.
        out_start: `VectorStep.episode_start`.
        out_action: `VectorStep.expert_action`.
        out_valid: `VectorStep.expert_valid`.
    """
    for slot in range(len(active)):
        if not active[slot]:
            continue
        out_active[slot] = True
        out_mission[slot] = missions[slot]
        out_start[slot] = taken[slot] == 0
        if label:
            if labels[slot] >= 0:
                out_action[slot], out_valid[slot] = labels[slot], True
            else:
                counts[task_of[slot]] += 1
