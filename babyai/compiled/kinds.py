"""Kinds of missions that have a compiled generator, and the parameters of a program; see `catalogue`."""

# Families, one compiled function each; a kind is 16 * family + member
GO, OPENING, PICKING, PUTTING, UNLOCKING, GENERAL = range(6)

(GOTO_RED_BALL_GREY, GOTO_RED_BALL, GOTO_OBJ, GOTO_LOCAL, GOTO_MAZE) = range(16 * GO, 16 * GO + 5)
(GOTO_IMP_UNLOCK, GOTO_RED_BLUE_BALL, GOTO_DOOR, GOTO_OBJ_DOOR, ACTION_OBJ_DOOR) = range(16 * GO + 5, 16 * GO + 10)
(OPEN_ANY, OPEN_RED_DOOR, OPEN_DOOR, OPEN_TWO_DOORS, OPEN_DOORS_ORDER) = range(16 * OPENING, 16 * OPENING + 5)
(PICKUP, UNBLOCK_PICKUP, PICKUP_DIST, PICKUP_ABOVE, FIND_OBJ, KEY_CORRIDOR, ONE_ROOM) = range(
    16 * PICKING, 16 * PICKING + 7
)
(PUT_NEXT_LOCAL, PUT_NEXT, MOVE_TWO_ACROSS) = range(16 * PUTTING, 16 * PUTTING + 3)
(UNLOCK, UNLOCK_LOCAL, KEY_IN_BOX, UNLOCK_PICKUP, BLOCKED_UNLOCK_PICKUP, UNLOCK_TO_UNLOCK) = range(
    16 * UNLOCKING, 16 * UNLOCKING + 6
)
LEVEL_GEN = 16 * GENERAL

(
    P_KIND,
    P_DRAWS,  # most draws that a level may take
    P_MAX_STEPS,  # of every level, 0 for minigrid's rule
    P_COUNT,  # distractors, objects per room, or doors
    P_FLAG,  # doors_open, debug, strict, start_carrying or distractors of the class
    P_FIRST,  # a colour, a type, or what OpenDoor selects by; -1 where it is drawn
    P_SECOND,
    # LevelGen's
    P_LOCKED_ROOM,  # probability times 2**53
    P_LOCATIONS,
    P_UNBLOCKING,
    P_IMPLICIT_UNLOCK,
    P_NUM_ACTIONS,
    P_NUM_FORMS,
) = range(13)
P_ACTIONS = 13  # GOTO, OPEN, PICK or PUTNEXT each
MAX_CHOICES = 8
P_FORMS = P_ACTIONS + MAX_CHOICES  # ACTION, BOTH or SEQUENCE each
NUM_PARAMS = P_FORMS + MAX_CHOICES
"""Columns of `LevelProgram.params`, int64."""

BY_COLOR, BY_LOCATION = range(2)  # P_FIRST of OPEN_DOOR
ACTION, BOTH, SEQUENCE = range(3)  # LevelGen's kinds of instructions: action, and, seq
