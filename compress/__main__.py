"""List the commands, one line each: python -m compress"""

from __future__ import annotations

from compress import registry

COMMANDS = {
    "data": "show what a data set holds",
    "explore": "look at a data set: tables, spectrograms, duplicates, augmentations, on one page",
    "teach": "train a timm teacher",
    "train": "train a student on labels alone, by a recipe",
    "baseline": "fit classifiers without a network, on statistics of the mel bands",
    "distill": "train a student under a teacher, export it, measure the file",
    "crossval": "train a student on every fold; means and spreads over the folds",
    "sweep": "search the values of a recipe; the best trial becomes a recipe",
    "search": "find a student for a budget of parameters and MACs, by short trainings",
    "ensemble": "several trained networks as one file, measured and gated as one",
    "prune": "take channels out of a trained student until it meets a target",
    "quantize": "turn a trained student into an int8 file, measured against the float one",
    "export": "write a trained model in the form that a device takes, measured as written",
    "pipeline": "teach, distil, prune, fine-tune, quantise, export and report by one recipe",
    "score": "measure finished runs on another data set: accuracy, recalls, confusion",
    "stream": "how surely and how soon a run follows scenes that change",
    "predict": "classes over time of a sound file, by a finished run",
    "report": "tabulate and draw every run, as text, CSV, JSON and one HTML page",
    "verify": "recompute what finished runs recorded, and name what differs",
    "gate": "fail files and students that are over their budget",
}


def main() -> int:
    print("commands: python -m compress.COMMAND --help")
    for name, sentence in COMMANDS.items():
        print(f"  {name:<9} {sentence}")
    print("\nstudents: --student NAME, or timm/NAME for any classifier of timm")
    for name, row in registry.STUDENTS.items():
        print(f"  {name:<16} {row.sentence}")
    print("\nNext: python -m compress.distill --student dsc500")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
