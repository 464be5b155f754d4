"""Task files and command lines that the tests of commands share."""

FINETUNE = ("train", "--gin_file=models/opt_tiny.gin", "--gin_file=runs/finetune.gin")
EVAL = ("eval", "--gin_file=models/opt_tiny.gin", "--gin_file=runs/eval.gin")


def task_file(**changes):
    """The content of a task file in Super-NaturalInstructions' schema."""
    return {
        "Contributors": ["A"],
        "Source": ["made"],
        "URL": [""],
        "Categories": ["Question Answering"],
        "Reasoning": [],
        "Definition": ["Say the word again."],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["Word"],
        "Positive Examples": [{"input": "x", "output": "x", "explanation": ""}],
        "Negative Examples": [],
        "Instances": [
            {"id": f"task001-{number}", "input": f"word{number}", "output": [f"word{number}"]}
            for number in range(30)
        ],
        "Instance License": ["MIT"],
        **changes,
    }


def prepare(data_dir, out, *flags):
    return (
        *("prepare", "super_natural_instructions", f"--data_dir={data_dir}", f"--out={out}"),
        *("--vocabulary=small", "--vocab_size=264", *flags),
    )


def train(store, model_dir, *flags):
    return (
        *(*FINETUNE, f"--gin.STORE='{store}'", f"--gin.MODEL_DIR='{model_dir}'"),
        *("--gin.VOCAB_SIZE=264", "--gin.OptConfig.num_layers=1", "--gin.TRAIN_STEPS=2"),
        *("--gin.WARMUP_STEPS=1", "--gin.TASK_FEATURE_LENGTHS={'targets': 64}", *flags),
    )
