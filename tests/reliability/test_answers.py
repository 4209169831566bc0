"""Answers cut, reset and stalled at every byte: no false acknowledgement, no hang."""

from __future__ import annotations

from pathlib import Path

import answers
from harness import new_seed


def test_300_broken_answers(tmp_path: Path) -> None:
    report = answers.run(tmp_path, 300, new_seed())
    print(report)
    assert report.run == 300
    assert report.acknowledged > 12
    assert all(report.by_ending[ending] > 30 for ending in answers.ENDINGS)


def test_what_may_acknowledge_is_what_the_contract_says() -> None:
    whole = {
        template.name: answers.Case(template, len(template.raw), "cut") for template in answers.TEMPLATES
    }
    assert whole["200 JSON"].must_acknowledge
    assert not whole["302"].may_acknowledge
    short = [case for case in answers.cases() if case.sent < len(case.template.raw) and case.may_acknowledge]
    # Only where the end of the connection is all that ends the answer, and only after its whole head.
    assert {case.template.name for case in short} == {"HTTP/1.0 text until close"}
    assert all(case.ending == "cut" for case in short)
    assert len(short) == len("accepted")
