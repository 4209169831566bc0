#!/bin/sh
# Installs Chromium and its driver for the tests of the receiver's page, where they are missing and this can be done:
# as root, on Debian. Elsewhere a line says so, and those tests are skipped.
set -u
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -qs '^ID=debian$' /etc/os-release; then
    export DEBIAN_FRONTEND=noninteractive
    # Without a mirror the tests are skipped, and nobody waits for minutes.
    quick='-o Acquire::http::Timeout=20 -o Acquire::Retries=0'
    # shellcheck disable=SC2086  # several words
    apt-get -qq $quick update && apt-get -qq $quick install -y --no-install-recommends chromium chromium-driver \
        >/dev/null && exit 0
fi
echo "bin/browser.sh: chromium and chromedriver are not here. The tests of the receiver's page are skipped." >&2
exit 0
