"""Mistakes on the command line: one line, exit code 2, and the word that was meant."""

import pytest

from dinomed3d.cli.main import VERBS, main

PREDICT = ["predict", "-i", "a", "-o", "b", "-m", "c"]


@pytest.mark.parametrize(
    ("words", "names", "meant"),
    [
        (["predcit"], "dinomed3d: error", "predict"),
        ([*PREDICT, "--devcie", "cpu"], "dinomed3d predict: error", "--device"),
        ([*PREDICT, "--devcie=cpu"], "dinomed3d predict: error", "--device"),
        ([*PREDICT, "--device", "cud"], "argument --device", "cuda"),
        (["predict", "--overwrit3", "-i", "a"], "-o, -m", "--overwrite"),
        (["plan", "-d", "1", "-gpu_memory_targt", "9"], "plan: error", "-gpu_memory_target"),
        ([*PREDICT, "--quickly"], "--quickly", None),  # close to nothing
        (["evaluate", "a", "b", "c"], "evaluate: error: unrecognized arguments: c", None),
        (["view", "a", "--port", "65536"], "argument --port", None),
        (["view", "a", "--port=-1"], "argument --port", None),
    ],
)
def test_mistakes_are_one_line_with_what_was_meant(words, names, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert names in printed.err and "--help" in printed.err
    assert (f"did you mean {meant}?" in printed.err) if meant else ("did you" not in printed.err)


def test_options_may_be_shortened_and_have_values_that_look_like_options(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--prec", "float32", "--memory=3", "-i", "a"])
    assert "unrecognized" not in capsys.readouterr().err


def test_the_command_alone_lists_its_verbs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([]) == 2
    printed = capsys.readouterr()
    verbs = printed.err.partition("VERB\n")[2].partition("\n\n")[0].splitlines()
    assert len(verbs) == len(VERBS), "a line for each"
    assert not printed.out and "doctor" in printed.err and "Exit codes:" in printed.err


def test_what_is_missing_comes_with_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["predict"])
    assert "required: -i, -o, -m; example: dinomed3d predict -i " in capsys.readouterr().err
