"""Students of lsx-tiny: python -m examples.tiny.distill FOLDER. What is there already is used again."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from examples.commands import lsx_in_processes
from examples.tiny.card import write_student_card
from examples.tiny.checkpoint import tiny_checkpoint
from examples.tiny.make import CONFIGS, CORES, accepted, keep_tokens, timed, training_data
from examples.tiny.student import KEPT, STUDENT, pack_student, student_checkpoint

__all__ = ["main", "make_students"]

STEPS = (8, 4, 2, 1)
OWN = "distilled"  # the folder, in make tiny's, of all but the data


def make_students(folder: Path) -> dict[int, Path]:
    """Distil the committed lsx-tiny under `folder`, on the data of `make tiny`; each student's checkpoint by steps."""
    folder.mkdir(parents=True, exist_ok=True)
    data, _ = training_data(folder)
    own = folder / OWN
    own.mkdir(exist_ok=True)
    teacher, students = tiny_checkpoint(own / "teacher"), own / "students"
    with timed(own, "tokens"):
        keep_tokens(teacher, data)
    found = {steps: students / f"{steps}-steps" for steps in STEPS}
    with timed(own, "distillation"):
        if not all(path.is_dir() for path in found.values()):
            resume = ["--resume"] if (students / "run.json").is_file() else []
            steps = ",".join(str(steps) for steps in STEPS)
            asked = ["--data", str(data), "--steps", steps, "--config", str(CONFIGS / "distill.yaml")]
            asked += ["-o", str(students), *resume]
            lsx_in_processes("distill", str(teacher), *asked, processes=CORES)
    return found


def judge_student(folder: Path, student: Path, output: Path) -> None:
    """Pack a student into `output`, see how its lips move, and write that down beside it."""
    pack_student(student, output)
    write_student_card(folder, output, KEPT, accepted(folder, partial(student_checkpoint, packed=output)))


def main() -> None:
    """Distil, pack the student of 4 steps, with --commit into the repository, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", action="store_true", help="write the student where the repository has it")
    given = parser.parse_args()
    students = make_students(given.folder)
    judge_student(given.folder / OWN, students[KEPT], STUDENT if given.commit else given.folder / "student")


if __name__ == "__main__":
    main()
