#!/bin/sh
# Install Chromium and its driver, in which tests/test_browser.py opens the notebooks. Only as root on a Debian that has
# apt-get; elsewhere, and where the download fails, nothing happens and those tests are skipped and say why.
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || [ ! -e /etc/debian_version ] || ! command -v apt-get >/dev/null; then
    echo "no chromium and chromedriver: tests/test_browser.py will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium chromium-driver >/dev/null ||
    echo "chromium could not be installed: tests/test_browser.py will be skipped" >&2
exit 0
