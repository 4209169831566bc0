"""The page on which a user approves or denies the code of a sign-in."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qs

from cirron_spool.receiver.account import SMALL_BODY
from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.device_codes import Decision, DeviceCodes, normal_user_code
from cirron_spool.receiver.device_flow import is_https
from cirron_spool.receiver.form_guard import FormGuard, set_cookie
from cirron_spool.receiver.guess_limit import GuessLimit
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.pages import HEADERS, FormError, form_page, outcome_page
from cirron_spool.receiver.tokens import Tokens

_FORM_TYPE = "application/x-www-form-urlencoded"
# Most fields of a form. The page sends fewer.
_MOST_FIELDS = 16

_DECISIONS = {"approve": Decision.APPROVED, "deny": Decision.DENIED}


class _Form(NamedTuple):
    """The submitted form. ``decision`` is NONE if no button was pressed."""

    user_code: str
    token: str
    decision: Decision
    form_token: str


class DevicePage:
    """Shows the form, and applies the user's decision. The number of wrong codes and tokens is limited."""

    def __init__(self, codes: DeviceCodes, tokens: Tokens, journal: Journal) -> None:
        self._codes = codes
        self._tokens = tokens
        self._journal = journal
        self._guard = FormGuard()
        self._wrong_codes = GuessLimit()
        self._wrong_tokens = GuessLimit()

    async def show(self, request: Request) -> Answer:
        """The form. It does not show whether the code in the query exists, which would help to guess codes."""
        given = _fields(request.head.query)
        return self._form_page(request, normal_user_code(given.get("user_code", "")))

    async def decide(self, request: Request) -> Answer:
        """Approve or deny a code."""
        form = await _read_form(request)
        user_code = normal_user_code(form.user_code)
        if not self._guard.is_own_form(request, form.form_token):
            error = FormError("The form was not sent from this page, or was too old. Send it again.")
            return self._form_page(request, user_code, error, 403)
        if form.decision is Decision.NONE:
            return self._form_page(request, user_code, FormError("Choose Approve or Deny."), 400)
        if not user_code:
            return self._form_page(request, "", FormError("Enter the code.", "user_code"), 400)
        wait_s = self._wrong_codes.wait_s(request.address)
        if form.decision is Decision.APPROVED and self._tokens.has_fixed:
            wait_s = max(wait_s, self._wrong_tokens.wait_s(request.address))
            if not wait_s and not self._tokens.is_fixed(form.token.strip()):
                self._wrong_tokens.wrong(request.address)
                error = FormError("This is not the token of the receiver.", "token")
                return self._form_page(request, user_code, error, 403)
        if wait_s:
            return _too_many(wait_s)
        if not self._codes.decide(user_code, form.decision):
            self._wrong_codes.wrong(request.address)
            error = FormError(
                "This code is unknown or expired. Compare it with the command, or start the command again.",
                "user_code",
            )
            return self._form_page(request, user_code, error, 404)
        if form.decision is Decision.DENIED:
            self._journal.note(f"Sign-in denied from {request.peer}")
            return _page(
                200, outcome_page("Denied", "The command is not signed in. You can close this page.")
            )
        self._journal.note(f"Sign-in approved from {request.peer}")
        return _page(200, outcome_page("Approved", "The command now signs in. You can close this page."))

    def _form_page(
        self, request: Request, user_code: str, error: FormError | None = None, status: int = 200
    ) -> Answer:
        if not (self._tokens.open or self._tokens.has_fixed):
            text = "This receiver was started without --token, so nobody can approve a sign-in here."
            return _page(403, outcome_page("No sign-in by code", text), refused=text)
        cookie = self._guard.cookie(request)
        page = form_page(
            user_code, self._guard.form_token(cookie), asks_token=self._tokens.has_fixed, error=error
        )
        fields = {"Set-Cookie": set_cookie(cookie, secure=is_https(request))}
        return _page(status, page, fields, refused=error.message if error else "")


async def _read_form(request: Request) -> _Form:
    """The fields of the form. Raises RefusedError."""
    content_type = request.head.fields.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != _FORM_TYPE:
        raise RefusedError(415, f"Content-Type must be {_FORM_TYPE}.")
    body = await request.read_all(SMALL_BODY)
    given = _fields(body.decode("utf-8", "replace"))
    return _Form(
        given.get("user_code", ""),
        given.get("token", ""),
        _DECISIONS.get(given.get("decision", ""), Decision.NONE),
        given.get("form_token", ""),
    )


def _fields(text: str) -> dict[str, str]:
    """The fields of a form or query. Raises RefusedError (400) for a duplicate field or too many fields."""
    try:
        parsed = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        parsed = {"": ["", ""]}
    if any(len(values) > 1 for values in parsed.values()):
        raise RefusedError(400, "A field of the form is given twice, or there are too many.")
    return {name: values[0] for name, values in parsed.items()}


def _page(status: int, html: str, fields: dict[str, str] | None = None, refused: str = "") -> Answer:
    return Answer(status, html, {**HEADERS, **(fields or {})}, refused)


def _too_many(wait_s: int) -> Answer:
    text = f"Too many wrong codes or tokens. Wait {wait_s} seconds, then try again."
    page = outcome_page("Too many attempts", text, again=True)
    return _page(429, page, {"Retry-After": str(wait_s)}, refused=text)
