"""The check of the token before a flush."""

from __future__ import annotations

from collections.abc import Callable

from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.errors import AuthInvalidError, TokenRenewalError
from cirron_spool.pipeline.patience import Patience


async def check_token(
    tokens: TokenManager, patience: Patience | None, warn: Callable[[str], None], *, verify: bool
) -> bool:
    """Renew the token if it expires soon, and ``verify`` it. True if the platform confirmed the token.

    Raises AuthInvalidError and TokenRenewalError. With ``patience``, only if no wait helps.
    """
    has_waited = False
    while True:
        token = tokens.token
        try:
            await tokens.renew_if_due(warn)
            verified = await tokens.verify(warn) if verify else False
        except (AuthInvalidError, TokenRenewalError) as error:
            if patience is None or not await patience.outlast_error(error, token):
                raise
            has_waited = True
        else:
            # Without a wait there may have been no request: another flush may still wait for the platform.
            if patience is not None and has_waited:
                patience.resume()
            return verified
