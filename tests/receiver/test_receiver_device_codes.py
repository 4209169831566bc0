from __future__ import annotations

import re

import pytest

from cirron_spool.receiver.device_codes import (
    ALPHABET,
    DENIED,
    EXPIRED,
    PENDING,
    Decision,
    DeviceCodes,
    Granted,
    PollError,
    SignIn,
    normal_user_code,
)
from cirron_spool.receiver.guess_limit import GuessLimit
from cirron_spool.receiver.tokens import Tokens


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def codes(clock: Clock) -> DeviceCodes:
    tokens = Tokens("sk-x", None, clock=clock)
    return DeviceCodes(tokens.issue, lifetime_s=900, interval_s=5, clock=clock)


def started(codes: DeviceCodes, address: str = "192.0.2.1") -> SignIn:
    sign_in = codes.start(address)
    assert sign_in is not None
    return sign_in


def test_codes_are_readable_and_hard_to_guess(codes: DeviceCodes) -> None:
    sign_ins = [started(codes, str(number)) for number in range(200)]
    assert all(
        re.fullmatch(f"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", sign_in.user_code) for sign_in in sign_ins
    )
    assert not set(ALPHABET) & set("AEIOU01")
    assert len({sign_in.user_code for sign_in in sign_ins}) == 200
    assert len({sign_in.device_code for sign_in in sign_ins}) == 200
    assert min(len(sign_in.device_code) for sign_in in sign_ins) >= 43


@pytest.mark.parametrize(
    "typed", ["wdjb-mjht", "WDJBMJHT", " WDJB MJHT\n", "W.D.J.B.M.J.H.T", "WDJB\u2013MJHT"]
)
def test_a_code_may_be_typed_in_many_ways(typed: str) -> None:
    assert normal_user_code(typed) == "WDJB-MJHT"


@pytest.mark.parametrize("typed", ["", "wdjb", "<script>alert(1)</script>", "ü" * 8, "x" * 100_000])
def test_what_is_no_code_stays_harmless(typed: str) -> None:
    assert re.fullmatch(r"[A-Z0-9]{0,4}|[A-Z0-9]{4}-[A-Z0-9]{1,12}", normal_user_code(typed))


def test_a_poll_at_the_right_pace_and_a_poll_too_fast(codes: DeviceCodes, clock: Clock) -> None:
    code = started(codes).device_code
    assert codes.poll(code) == PENDING
    clock.now += 4.6  # the network delivers a little early
    assert codes.poll(code) == PENDING
    clock.now += 4.4
    assert codes.poll(code) == PollError("slow_down", 10)
    clock.now += 9
    assert codes.poll(code) == PollError("slow_down", 15)
    clock.now += 15
    assert codes.poll(code) == PENDING
    assert [codes.poll(code) for _ in range(50)][-1] == PollError("slow_down", 60)


def test_an_approved_code_gives_the_same_tokens_for_a_minute(codes: DeviceCodes, clock: Clock) -> None:
    sign_in = started(codes)
    assert codes.decide(sign_in.user_code, Decision.APPROVED)
    first = codes.poll(sign_in.device_code)
    assert isinstance(first, Granted)
    assert not first.again
    clock.now += 59
    assert codes.poll(sign_in.device_code) == Granted(first.issued, again=True)
    clock.now += 1
    assert codes.poll(sign_in.device_code) == EXPIRED
    assert not codes.decide(sign_in.user_code, Decision.APPROVED)


def test_a_denied_code_stays_denied(codes: DeviceCodes) -> None:
    sign_in = started(codes)
    assert codes.decide(sign_in.user_code.lower(), Decision.DENIED)
    assert codes.poll(sign_in.device_code) == DENIED
    assert not codes.decide(sign_in.user_code, Decision.APPROVED)
    assert codes.poll(sign_in.device_code) == DENIED


def test_a_decision_can_be_corrected_and_sent_twice_until_it_is_known(codes: DeviceCodes) -> None:
    sign_in = started(codes)
    for decision in (Decision.APPROVED, Decision.DENIED, Decision.APPROVED, Decision.APPROVED):
        assert codes.decide(sign_in.user_code, decision)
    assert isinstance(codes.poll(sign_in.device_code), Granted)
    assert codes.decide(sign_in.user_code, Decision.APPROVED)
    assert not codes.decide(sign_in.user_code, Decision.DENIED)


@pytest.mark.parametrize("decision", [Decision.NONE, Decision.APPROVED, Decision.DENIED])
def test_a_code_expires_whatever_was_decided(codes: DeviceCodes, clock: Clock, decision: Decision) -> None:
    sign_in = started(codes)
    if decision is not Decision.NONE:
        codes.decide(sign_in.user_code, decision)
    clock.now += 900
    assert codes.poll(sign_in.device_code) == EXPIRED
    assert not codes.decide(sign_in.user_code, Decision.APPROVED)


def test_sign_ins_are_bounded_and_room_comes_back(codes: DeviceCodes, clock: Clock) -> None:
    greedy = [started(codes) for _ in range(32)]
    assert codes.start("192.0.2.1") is None
    other = started(codes, "192.0.2.2")
    codes.decide(greedy[0].user_code, Decision.DENIED)
    assert codes.start("192.0.2.1") is not None
    for number in range(1024 - 34):
        assert codes.start(f"of {number}") is not None
    assert codes.start("192.0.2.3") is None
    clock.now += 900
    assert codes.start("192.0.2.1") is not None
    assert codes.poll(other.device_code) == EXPIRED


def test_five_wrong_guesses_in_a_minute(clock: Clock) -> None:
    limit = GuessLimit(clock)
    for _ in range(5):
        assert limit.wait_s("192.0.2.1") == 0
        limit.wrong("192.0.2.1")
        clock.now += 1
    assert limit.wait_s("192.0.2.1") == 56
    assert limit.wait_s("::ffff:192.0.2.1") == 56
    assert limit.wait_s("192.0.2.2") == 0
    clock.now += 55
    assert limit.wait_s("192.0.2.1") == 0
    limit.wrong("192.0.2.1")
    assert limit.wait_s("192.0.2.1") == 2


def test_an_ipv6_network_guesses_as_one_and_memory_is_bounded(clock: Clock) -> None:
    limit = GuessLimit(clock)
    for number in range(5):
        limit.wrong(f"2001:db8::{number + 1:x}")
    assert limit.wait_s("2001:db8::ffff") > 0
    assert limit.wait_s("2001:db8:0:1::1") == 0
    for number in range(1024):
        limit.wrong(f"10.0.{number >> 8}.{number & 255}")
    assert limit.wait_s("2001:db8::1") == 0  # the oldest is forgotten
    assert limit.wait_s("fe80::1%eth0") == 0


def test_issued_tokens_expire_and_refresh_tokens_work_once(clock: Clock) -> None:
    tokens = Tokens("sk-fixed", None, access_s=60, clock=clock)
    issued = tokens.issue()
    bearer = tokens.bearer(f"Bearer {issued.access_token}")
    assert bearer is not None
    assert bearer.expires_in == 60
    clock.now += 60
    assert tokens.bearer(f"Bearer {issued.access_token}") is None
    assert tokens.bearer("Bearer sk-fixed") == ("receiver", None)
    assert tokens.bearer(f"Bearer {issued.refresh_token}") is None
    renewed = tokens.refresh(issued.refresh_token)
    assert renewed is not None
    assert tokens.refresh(issued.refresh_token) is None
    assert tokens.refresh(issued.access_token) is None
    clock.now += 30 * 86400
    assert tokens.refresh(renewed.refresh_token) is None


def test_issued_tokens_are_bounded(clock: Clock) -> None:
    tokens = Tokens(None, "first", clock=clock)
    issued = [tokens.issue() for _ in range(4097)]
    assert tokens.bearer(f"Bearer {issued[0].access_token}") is None
    assert tokens.bearer(f"Bearer {issued[-1].access_token}") is not None
    assert tokens.refresh(issued[0].refresh_token) is None
