"""What a shell sees of an app that ends."""

import pytest

from gpt_core.exit_status import exit_with
from gpt_core.training.midtraining import NoCheckpoint


def ended(how):
    """What `sys.exit` is given by an app that returns, or raises, this."""

    def main(argv):
        if isinstance(how, BaseException):
            raise how
        return how

    with pytest.raises(SystemExit) as end:
        exit_with(main, [])
    return end.value.code


def test_what_the_user_can_mend_is_one_line(capsys):
    assert [ended(how) for how in (None, 0, 3, KeyboardInterrupt())] == [None, 0, 3, 130]
    for error in (ValueError("wrong"), OSError("wrong"), ImportError("wrong")):
        assert ended(error) == "error: wrong"
    assert ended(NoCheckpoint("name one")) == 2 and capsys.readouterr().err == "error: name one\n"


def test_a_bug_shows_its_traceback():
    with pytest.raises(KeyError):
        exit_with(lambda argv: {}["missing"], [])
