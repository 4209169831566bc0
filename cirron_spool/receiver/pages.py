"""The HTML of the page that approves a sign-in. The page has no script and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #1b1f24; --soft: #57606a; --line: #8c959f;
  --accent: #0b5cad; --on-accent: #fff; --error: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --back: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9da7b3; --line: #6e7681;
    --accent: #6cb6ff; --on-accent: #0d1117; --error: #ff8f85; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 28rem; margin: 0 auto; padding: 1.5rem 1rem; }
form, .outcome { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; }
label { display: block; font-weight: 600; }
.hint + label { margin-top: 1rem; }
input { width: 100%; min-height: 2.75rem; padding: .5rem .75rem; margin: .25rem 0; font: inherit; color: inherit;
  background: var(--back); border: 1px solid var(--line); border-radius: .375rem; }
#user_code { font-family: ui-monospace, monospace; font-size: 1.25rem; letter-spacing: .1em; }
.hint { color: var(--soft); font-size: .875rem; margin: 0; }
.outcome p:last-child { margin: 0; }
.error { color: var(--error); font-weight: 600; }
input[aria-invalid] { border: 2px solid var(--error); }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.5rem; }
button { flex: 1 1 8rem; min-height: 2.75rem; font: inherit; font-weight: 600; border-radius: .375rem; cursor: pointer;
  color: var(--accent); background: transparent; border: 2px solid var(--accent); }
button.main { color: var(--on-accent); background: var(--accent); }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# With `no-referrer`, browsers would send `Origin: null` with the form.
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class FormError(NamedTuple):
    """The error message of a refused form, and the field to correct, if any."""

    message: str
    field: str = ""


def form_page(user_code: str, form_token: str, *, asks_token: bool, error: FormError | None = None) -> str:
    """The form that approves or denies ``user_code``, which may be empty."""
    wrong = error.field if error else ""
    focus = wrong or ("token" if asks_token and user_code else "user_code")
    if asks_token:
        who = "You need the token of this receiver."
        token_field = f"""
<label for="token">Token of the receiver</label>
<input id="token" name="token" type="password" required autocomplete="current-password"
 {_state("token", wrong, focus)}aria-describedby="{_description("token", wrong)}">
<p class="hint" id="token-hint">The value of --token or CIRRON_RECEIVE_TOKEN.</p>"""
    else:
        who = "This receiver has no token: anyone who can reach this page may approve."
        token_field = ""
    alert = f'<p class="error" id="error" role="alert">{escape(error.message)}</p>' if error else ""
    return _page(
        f"{'Error: ' if error else ''}Approve a sign-in",
        f"""<h1>Approve a sign-in</h1>
<p>A command asks to sign in to this cirron-spool receiver. Approve it only if you have started the command yourself and
it shows the same code. {who}</p>
<form method="post" action="/device">
{alert}
<input type="hidden" name="form_token" value="{escape(form_token)}">
<label for="user_code">Code</label>
<input id="user_code" name="user_code" value="{escape(user_code)}" required maxlength="32" autocomplete="off"
 autocapitalize="characters" spellcheck="false"
 {_state("user_code", wrong, focus)}aria-describedby="{_description("user_code", wrong)}">
<p class="hint" id="user_code-hint">Eight letters, such as WDJB-MJHT, as the command shows them.</p>{token_field}
<div class="buttons">
<button class="main" name="decision" value="approve">Approve</button>
<button name="decision" value="deny" formnovalidate>Deny</button>
</div>
</form>""",
    )


def outcome_page(title: str, text: str, *, again: bool = False) -> str:
    """A page with the result. With ``again`` it has a link back to the form."""
    link = '<p><a href="/device">Enter another code</a></p>' if again else ""
    return _page(
        title,
        f'<h1>{escape(title)}</h1>\n<div class="outcome" role="status"><p>{escape(text)}</p>{link}</div>',
    )


def _state(field: str, wrong: str, focus: str) -> str:
    """The attributes of a field with the focus, or with a wrong value."""
    invalid = 'aria-invalid="true" ' if field == wrong else ""
    return invalid + ("autofocus " if field == focus else "")


def _description(field: str, wrong: str) -> str:
    """The elements that describe a field: the error of a wrong field, and the hint."""
    return f"error {field}-hint" if field == wrong else f"{field}-hint"


def _page(title: str, main: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} - cirron-spool</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
{main}
</main>
</body>
</html>
"""
